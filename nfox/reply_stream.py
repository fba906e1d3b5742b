"""A reply on its way: from the steps of the loop to the pieces of a text."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from typing_extensions import override

from nfox.reply import Reply, Request, Update
from nfox.text.pieces import Piece


class ReplyStream(Iterator[Piece]):
    """A reply on its way: an iterator over the pieces of its text, also with `async for`.

    Closing it, leaving its `with` block, or losing it ends the reply where it is.

    Args:
        request: what was asked for.
        reply: grows as the stream is iterated.
        updates: what every step adds to the reply.
        cancelled: ends the reply when it is set.
        thread: in which steps run where the stream is read by `async for`.
        on_end: called once, with the reply, when it has ended, in whatever way.

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
        thread: ThreadPoolExecutor,
        on_end: Callable[[Reply], None] | None = None,
    ) -> None:
        self.request = request
        self.reply = reply
        self._updates = updates
        self._cancelled = cancelled
        self._thread = thread
        self._on_end = on_end
        self._pieces: deque[Piece] = deque()
        # Whoever closes the stream from another thread waits for the forward that is running.
        self._stepping = threading.RLock()

    @override
    def __next__(self) -> Piece:
        with self._stepping:
            while not self._pieces:
                update = self._next_update()
                if update is None:
                    raise StopIteration
                self._pieces.extend(update.pieces)
            return self._pieces.popleft()

    def updates(self) -> Iterator[Update]:
        """Yield what every step adds to the reply, instead of its text alone."""
        try:
            while (update := self._next_update()) is not None:
                yield update
        finally:
            self.close()

    def _next_update(self) -> Update | None:
        """Return what the next step adds; None at the end."""
        with self._stepping:
            try:
                return next(self._updates)
            except StopIteration:
                self._end()
                return None
            except BaseException:
                self._end()
                raise

    def read_to_end(self) -> Reply:
        """Read the stream to its end and return the whole reply."""
        for _ in self.updates():
            pass
        return self.reply

    def cancel(self) -> None:
        """End the reply after the forward that is running; what was said so far is kept. From any
        thread, or from a signal handler.
        """
        self._cancelled.set()

    def close(self) -> None:
        """End the reply where it is; from another thread, after the forward that is running. Of a
        reply that has ended nothing changes.
        """
        self.cancel()
        with self._stepping:
            self._updates.close()
            self._pieces.clear()
            self._end()

    def _end(self) -> None:
        """Tell once that the reply has ended; once more, if the telling is interrupted."""
        if self._on_end is not None:
            try:
                self._on_end(self.reply)
            except KeyboardInterrupt:
                raise
            except BaseException:
                self._on_end = None
                raise
            self._on_end = None

    def __del__(self) -> None:
        if hasattr(self, "_stepping"):  # else it was interrupted while it was made
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        """Return the next piece; steps run in a thread, so that the event loop goes on. A task that
        is cancelled ends the reply after the forward that is running.
        """
        step = asyncio.get_running_loop().run_in_executor(self._thread, next, self, None)
        try:
            piece = await asyncio.shield(step)
        except asyncio.CancelledError:
            self.cancel()
            await asyncio.wait([step])
            self.close()
            raise
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()
