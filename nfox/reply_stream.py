"""A reply on its way."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Self

from typing_extensions import override

from nfox.reply import Reply, Request, Update
from nfox.text.stream import Piece


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
