"""A queue that is fair to those who wait in it: whoever asks much waits behind whoever asks little.

Clients take turns; what one client asks is served in the order in which it was asked.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

from nfox.serve.errors import Busy

Work = TypeVar("Work")


class FairQueue(Generic[Work]):
    """Work of several clients. For any number of threads.

    Args:
        limit: how much may wait.
        gone: whether nobody waits for a piece of work any more.
    """

    def __init__(self, limit: int, gone: Callable[[Work], bool] = lambda work: False) -> None:
        self._limit = limit
        self._gone = gone
        self._waiting: OrderedDict[str, deque[Work]] = OrderedDict()  # whose turn it is, first
        self._changed = threading.Condition()

    def __len__(self) -> int:
        with self._changed:
            return self._count()

    def _count(self) -> int:
        return sum(map(len, self._waiting.values()))

    def put(self, client: str, work: Work) -> None:
        """Add work of a client.

        Raises:
            Busy: if the queue is full.
        """
        with self._changed:
            if self._count() >= self._limit:
                self._forget()
            if self._count() >= self._limit:
                raise Busy(f"{self._limit} requests are waiting already", "try again later")
            self._waiting.setdefault(client, deque()).append(work)
            self._changed.notify()

    def _forget(self) -> None:
        """Drop what nobody waits for."""
        for client, own in list(self._waiting.items()):
            self._waiting[client] = deque(work for work in own if not self._gone(work))
            if not self._waiting[client]:
                del self._waiting[client]

    def get(self) -> Work:
        """Return what is to be done next; wait for it. Its client goes to the end of the line."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            client, own = self._waiting.popitem(last=False)
            work = own.popleft()
            if own:
                self._waiting[client] = own
            return work
