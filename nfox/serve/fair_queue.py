"""A queue that is fair to those who wait in it: whoever asks much waits behind whoever asks little.

Addresses take turns, and within an address those who ask from there; what one of them asks is
served in the order in which it was asked.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

from nfox.serve.errors import Busy

Work = TypeVar("Work")
Lines = OrderedDict[str, deque[Work]]


class FairQueue(Generic[Work]):
    """Work of several clients. For any number of threads.

    Args:
        limit: how much may wait.
        gone: whether nobody waits for a piece of work any more.
    """

    def __init__(self, limit: int, gone: Callable[[Work], bool] = lambda work: False) -> None:
        self._limit = limit
        self._gone = gone
        self._waiting: OrderedDict[str, Lines[Work]] = OrderedDict()  # whose turn it is, first
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        with self._changed:
            return self._count()

    def _count(self) -> int:
        """Return for how much somebody waits; forget the rest."""
        count = 0
        for address, lines in list(self._waiting.items()):
            for user, line in list(lines.items()):
                lines[user] = deque(work for work in line if not self._gone(work))
                count += len(lines[user])
                if not lines[user]:
                    del lines[user]
            if not lines:
                del self._waiting[address]
        return count

    def put(self, client: tuple[str, str], work: Work) -> None:
        """Add work of a client.

        Args:
            client: an address, and somebody behind it.
            work: to do.

        Raises:
            Busy: if the queue is full.
        """
        address, user = client
        with self._changed:
            if self._count() >= self._limit:
                raise Busy(f"{self._limit} requests are waiting already", "try again later")
            lines = self._waiting.setdefault(address, OrderedDict())
            lines.setdefault(user, deque()).append(work)
            self._changed.notify()

    def get(self) -> Work | None:
        """Return what is to be done next; wait for it. Its client goes to the end of the line.

        Returns:
            None when the queue is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            address, lines = self._waiting.popitem(last=False)
            user, line = lines.popitem(last=False)
            work = line.popleft()
            if line:
                lines[user] = line
            if lines:
                self._waiting[address] = lines
            return work

    def close(self) -> list[Work]:
        """Let nobody wait any more; return what was waiting."""
        with self._changed:
            self._closed = True
            left = [w for lines in self._waiting.values() for line in lines.values() for w in line]
            self._waiting.clear()
            self._changed.notify_all()
            return left
