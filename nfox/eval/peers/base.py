"""What a peer of a benchmark is: another program's way to answer, in a process of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import psutil

from nfox.decoding import clock
from nfox.errors import ModelError

if TYPE_CHECKING:
    from nfox.decoding.generate import Limits, Prompt
    from nfox.engine import Engine
    from nfox.models.options import ModelOptions
    from nfox.reply import Settings

OnTokens = Callable[[Sequence[int]], None]
"""Called with the token ids of a forward as soon as they are known."""

Block = tuple[float, Sequence[int]]
"""The seconds after which the token ids of a forward were known, and the ids."""


class PeerError(ModelError):
    """A peer cannot go on: its process died, or it said why not."""


class Peer(ABC):
    """Another program's way to answer, with the same weights.

    nfox's process makes the recipe; another one makes the peer of it, and asks it.

    Attributes:
        name: as typed after --peers.
        other_weights: whether its weights are rounded otherwise, so that it says another text.
    """

    name: ClassVar[str]
    other_weights: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def recipe(cls, engine: Engine, folder: Path) -> dict[str, Any]:
        """Return the keyword arguments of which another process makes the peer.

        Args:
            engine: with the model.
            folder: for files that all peers may read while they are made; it is removed then.

        Raises:
            ModelError: if it cannot run this model.
        """

    @abstractmethod
    def answer(
        self, prompt: Prompt, settings: Settings, limits: Limits, on_tokens: OnTokens
    ) -> None:
        """Answer a prompt.

        Args:
            prompt: what is decoded on from.
            settings: how tokens are chosen.
            limits: the most tokens, and the tokens that end the reply.
            on_tokens: called whenever there are new tokens, first when the prompt was read.
        """

    def blocks(self, prompt: Prompt, settings: Settings, limits: Limits) -> list[Block]:
        """Return the tokens of an answer, forward by forward, with their times.

        Args:
            prompt: as of `answer`, like the others.
            settings: how tokens are chosen.
            limits: the most tokens, and the tokens that end the reply.
        """
        blocks: list[Block] = []
        start = clock.now()

        def on_tokens(tokens: Sequence[int]) -> None:
            blocks.append((clock.now() - start, tokens))

        self.answer(prompt, settings, limits, on_tokens)
        return blocks

    def begin(self) -> None:  # noqa: B027 - most keep nothing of a conversation
        """Begin another conversation, with nothing read."""

    def memory(self) -> int:
        """Return the bytes of memory that its process uses."""
        return int(psutil.Process().memory_info().rss)

    def describe(self) -> str:
        """Return in a few words what it runs with."""
        return ""

    def close(self) -> None:  # noqa: B027 - most leave nothing behind
        """Free its memory."""


def draft_of(engine: Engine) -> tuple[str, ModelOptions]:
    """Return the draft model of method `spec`, its folder or hub id, and how it is loaded.

    Raises:
        ModelError: if there is none.
    """
    from nfox.drafters.spec import Speculative

    draft = Speculative.locate(engine.model.name, engine.sources)
    if draft is None or engine.loader is None:
        raise ModelError("no draft model was named", "pass --draft-model FOLDER or hub id")
    return draft, engine.loader.draft_loading
