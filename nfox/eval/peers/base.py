"""What a peer of a benchmark is, and how its replies are counted."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Self

from nfox.decoding.generate import Limits, Prompt
from nfox.engine import Engine
from nfox.reply import Finish, Reply, Request, Settings
from nfox.reply_text import cut_at_stop
from nfox.text.stream import TextStream

OnTokens = Callable[[Sequence[int]], None]
"""Called with the token ids of a forward as soon as they are known."""

Block = tuple[float, Sequence[int]]
"""The seconds after which the token ids of a forward were known, and the ids."""


class Peer(ABC):
    """Another program's way to answer, with the same weights.

    Attributes:
        name: as typed after --peers.
    """

    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def build(cls, engine: Engine) -> Self:
        """Return the peer for an engine's model.

        Raises:
            ModelError: if it cannot run this model, or is not installed.
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

    def begin(self) -> None:  # noqa: B027 - most keep nothing of a conversation
        """Begin another conversation, with nothing read."""

    def describe(self) -> str:
        """Return in a few words what it runs with."""
        return ""

    def close(self) -> None:  # noqa: B027 - most leave nothing behind
        """Remove what it wrote, and free its memory."""


def answer(peer: Peer, engine: Engine, request: Request) -> Reply:
    """Return a peer's reply to a request, with the statistics of nfox's own replies.

    Of a peer's forwards only their tokens are seen. The first ones come with the prompt's forward,
    which is no step: steps, tokens and seconds of the stats are those after it.

    Args:
        peer: the program that answers.
        engine: the engine whose tokenizer, context and stop tokens hold.
        request: what is asked.
    """
    prompt, settings = request.prompt, request.settings
    max_tokens = min(settings.max_new_tokens, engine.max_context - len(prompt.ids) + 1)
    limits = Limits(max_tokens, engine.max_context, engine.stop_ids)
    blocks: list[Block] = []
    start = time.perf_counter()

    def on_tokens(tokens: Sequence[int]) -> None:
        blocks.append((time.perf_counter() - start, tokens))

    peer.answer(prompt, settings, limits, on_tokens)
    reply = Reply(peer.name)
    reply.stats.prompt_tokens = len(prompt.ids)
    stops = (*request.stop_strings, *settings.stop)
    text = TextStream(engine.model.tokenizer, stops, trim=True)
    _count(reply, blocks, text, limits)
    text.finish()
    cut_at_stop(engine.model.tokenizer, reply, text)
    return reply


def _count(reply: Reply, blocks: Sequence[Block], text: TextStream, limits: Limits) -> None:
    """Add blocks of tokens to a reply and its statistics, as far as the reply's end.

    Args:
        reply: without tokens yet.
        blocks: the tokens of each forward; those of the prompt's forward first.
        text: takes the tokens, and stops at a stop string.
        limits: the most tokens, and the tokens that end the reply.
    """
    stats, before = reply.stats, 0.0
    finish: Finish | None = None
    for index, (moment, tokens) in enumerate(blocks):
        count = 0
        for token in tokens:
            count += 1
            if token in limits.stop_ids:
                finish = "stop"
                break
            reply.ids.append(token)
            text.push(token, "bonus", index)
            if text.stopped or len(reply.ids) == limits.max_tokens:
                finish = "stop" if text.stopped else "length"
                break
        if index:
            stats.steps += 1
            stats.tokens += count
            stats.lengths.append(count)
            stats.seconds += moment - before
        else:
            stats.prefill_seconds = stats.first_token_seconds = moment
        before = moment
        if finish:
            break
    reply.finish = finish or "length"
