"""A reply on its way: from the steps of the loop to the pieces of a text."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Any, Self

from typing_extensions import override

from nfox.decoding.cache import KVCache
from nfox.decoding.generate import Prompt, Step
from nfox.reply import Reply, Request, Update
from nfox.text.pieces import Piece
from nfox.text.stream import TextStream, decode_text


class ReplyStream(Iterator[Piece]):
    """A reply on its way: an iterator over the pieces of its text, also with `async for`.

    Closing it, leaving its `with` block, or losing it ends the reply where it is.

    Args:
        request: what was asked for.
        reply: grows as the stream is iterated.
        updates: what every step adds to the reply.
        cancelled: ends the reply when it is set.

    Attributes:
        request: what was asked for.
        reply: the reply so far.
    """

    def __init__(
        self,
        request: Request,
        reply: Reply,
        updates: Generator[Update],
        cancelled: threading.Event,
    ) -> None:
        self.request = request
        self.reply = reply
        self._updates = updates
        self._cancelled = cancelled
        self._pieces: deque[Piece] = deque()

    @override
    def __next__(self) -> Piece:
        while not self._pieces:
            self._pieces.extend(next(self._updates).pieces)
        return self._pieces.popleft()

    def updates(self) -> Iterator[Update]:
        """Yield what every step adds to the reply, instead of its text alone."""
        return self._updates

    def wrapped(self, updates: Generator[Update]) -> ReplyStream:
        """Return a stream of the same reply that is driven through another generator.

        Args:
            updates: yields what this stream's `updates` yield, and closes this stream at its end.
        """
        return ReplyStream(self.request, self.reply, updates, self._cancelled)

    def cancel(self) -> None:
        """End the reply after the forward that is running; what was said so far is kept. From any
        thread, or from a signal handler.
        """
        self._cancelled.set()

    def close(self) -> None:
        """End the reply where it is. Of an ended reply nothing changes."""
        self._updates.close()

    def finish(self) -> Reply:
        """Read the stream to its end and return the whole reply."""
        for _ in self._updates:
            pass
        return self.reply

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        """Return the next piece; forwards run in a thread, so that the event loop goes on."""
        piece = await asyncio.to_thread(next, self, None)
        if piece is None:
            raise StopAsyncIteration
        return piece


def to_updates(
    steps: Iterator[Step], tokenizer: Any, request: Request, reply: Reply, stop_ids: frozenset[int]
) -> Generator[Update]:
    """Turn the tokens of a reply's steps into text, and yield what every step adds.

    Args:
        steps: of the loop.
        tokenizer: of the target.
        request: what is asked for.
        reply: gets the ids, the text and the statistics as they come.
        stop_ids: tokens that end the reply and are no part of its text.
    """
    begun = request.prompt.ids if request.prompt.continued else ()
    stops = (*request.stop_strings, *request.settings.stop)
    text = TextStream(tokenizer, stops, begun, trim=not begun)
    try:
        for step in steps:
            pieces = _take(step, reply, text, stop_ids)
            reply.finish = "stop" if text.stopped else step.finish or "interrupt"
            yield Update(tuple(pieces), step)
            if text.stopped:
                break
        rest = text.finish()
        reply.text = text.text
        if rest:
            yield Update(tuple(rest), None)
    finally:
        text.finish()
        agree(tokenizer, reply, text, begun)


def timed(steps: Iterator[Step], prompt: Prompt, cache: KVCache, reply: Reply) -> Iterator[Step]:
    """Yield the steps of a reply; note in its statistics what reading the prompt took.

    Args:
        steps: of the loop, which reads the prompt before it yields the first.
        prompt: what is read.
        cache: what the target has read.
        reply: whose statistics they are.
    """
    stats = reply.stats
    stats.prompt_tokens = len(prompt.ids)
    start = time.perf_counter()
    for index, step in enumerate(steps):
        if index == 0:
            stats.prefill_seconds = time.perf_counter() - start - step.times.total
            stats.cached_tokens = cache.reused
        yield step


def _take(step: Step, reply: Reply, text: TextStream, stop_ids: frozenset[int]) -> list[Piece]:
    """Add a step's tokens to the reply; return the text that they complete."""
    pieces: list[Piece] = []
    count = 0
    for token, source in zip(step.tokens, step.sources, strict=True):
        count += 1
        if token in stop_ids:
            break
        reply.ids.append(token)
        pieces += text.push(token, source, reply.stats.steps)
        if text.stopped:
            break
    reply.stats.add(step, count)
    reply.text = text.text
    return pieces


def agree(tokenizer: Any, reply: Reply, text: TextStream, begun: tuple[int, ...] = ()) -> None:
    """Make a reply's ids and text agree: a stop string belongs to neither.

    Args:
        tokenizer: of the model.
        reply: a reply that has ended.
        text: the stream of its text.
        begun: the token ids that the reply goes on from.
    """
    reply.text = text.text
    if not text.stopped:
        return
    before = decode_text(tokenizer, begun)

    def spelled_reply() -> str:
        after = decode_text(tokenizer, [*begun, *reply.ids])[len(before) :]
        return after if begun else after.removeprefix(" ")

    while reply.ids and len(spelled_reply()) > len(text.text):
        reply.ids.pop()
    if spelled_reply() != text.text:
        reply.ids = []  # the cut is inside a token: the text will be tokenised again
