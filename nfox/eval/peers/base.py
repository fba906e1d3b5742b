"""What a peer of a benchmark is, and how its replies are counted."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import ClassVar, Self

from nfox.engine import Engine, close
from nfox.errors import ContextError
from nfox.reply import Finish, Reply, Settings
from nfox.text.stream import TextStream
from nfox.text.template import Message

Tell = Callable[[Sequence[int]], None]
"""Told of new tokens as soon as they are there."""

Block = tuple[float, Sequence[int]]
"""When tokens were there, in seconds, and which."""


class Peer(ABC):
    """Another program's way to answer, with the same weights.

    Attributes:
        name: as typed after --peers.
    """

    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def build(cls, engine: Engine) -> Self:
        """Make one for a chat's model.

        Raises:
            ModelError: if it cannot answer for this model, or is not installed.
        """

    @abstractmethod
    def answer(
        self,
        prompt: Sequence[int],
        source: tuple[int, ...] | None,
        settings: Settings,
        stop_ids: Collection[int],
        limit: int,
        tell: Tell,
    ) -> None:
        """Answer a prompt.

        Args:
            prompt: token ids; for encoder-decoder models the decoder's.
            source: what the encoder reads, if there is one.
            settings: how tokens are chosen.
            stop_ids: tokens that end the reply.
            limit: tokens at most.
            tell: called whenever there are new tokens, the first time when the prompt was read.
        """

    def begin(self) -> None:  # noqa: B027 - most keep nothing of a conversation
        """Forget the conversation before."""

    def describe(self) -> str:
        """Say in a few words what it runs with."""
        return ""

    def close(self) -> None:  # noqa: B027 - most leave nothing behind
        """Take away what it made."""


def hold(peer: Peer, engine: Engine, messages: Sequence[Message]) -> Reply:
    """Have a peer answer messages, and count as for nfox's own replies.

    Of a peer's forwards only their tokens are seen. The first ones come with the prompt's forward,
    which is no step: steps, tokens and seconds of the stats are those after it.

    Args:
        peer: who answers.
        engine: whose template, settings and limits hold.
        messages: the conversation so far.

    Raises:
        ContextError: if they do not fit into the context.
    """
    prompt, source = engine.encode(messages)
    limit = min(engine.settings.max_new_tokens, engine.max_context - len(prompt) + 1)
    if limit < 1:
        raise ContextError(
            f"the prompt has {len(prompt)} tokens, the context holds {engine.max_context}",
            "shorten it, or start a new conversation",
        )
    blocks: list[Block] = []
    start = time.perf_counter()

    def tell(tokens: Sequence[int]) -> None:
        blocks.append((time.perf_counter() - start, tokens))

    peer.answer(prompt, source, engine.settings, engine.stop_ids, limit, tell)
    reply = Reply(peer.name)
    reply.stats.prompt_tokens = len(prompt)
    stops = (*engine.template.stop_strings, *engine.settings.stop)
    text = TextStream(engine.model.tokenizer, stops, trim=True)
    _count(reply, blocks, text, engine.stop_ids, limit)
    text.finish()
    close(engine.model.tokenizer, reply, text)
    return reply


def _count(
    reply: Reply,
    blocks: Sequence[Block],
    text: TextStream,
    stop_ids: Collection[int],
    limit: int,
) -> None:
    """Add blocks of tokens to a reply; what stands behind its end counts nowhere."""
    stats, before = reply.stats, 0.0
    finish: Finish | None = None
    for place, (moment, tokens) in enumerate(blocks):
        count = 0
        for token in tokens:
            count += 1
            if token in stop_ids:
                finish = "stop"
                break
            reply.ids.append(token)
            text.push(token, "bonus", place)
            if text.stopped or len(reply.ids) == limit:
                finish = "stop" if text.stopped else "length"
                break
        if place:
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
