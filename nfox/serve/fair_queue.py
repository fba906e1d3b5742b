"""A queue that is fair to its clients: whoever asks much waits behind whoever asks little.

Addresses take turns, and within an address its users take turns; the requests of one user are
served in the order in which they came.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

from nfox.serve.errors import QueueFull, ServerStopping

Work = TypeVar("Work")
Lines = OrderedDict[str, deque[Work]]  # the waiting work of every user of one address


class FairQueue(Generic[Work]):
    """The waiting work of several clients, for any number of threads.

    Args:
        limit: the number of pieces of work that may wait.
        abandoned: whether nobody waits for a piece of work any more; such work takes no place.
    """

    def __init__(self, limit: int, abandoned: Callable[[Work], bool] = lambda work: False) -> None:
        self._limit = limit
        self._abandoned = abandoned
        self._addresses: OrderedDict[str, Lines[Work]] = OrderedDict()  # whose turn it is, first
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        with self._changed:
            return self._drop_abandoned()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def _drop_abandoned(self) -> int:
        """Forget abandoned work; return the number of pieces of work that are left."""
        count = 0
        for address, lines in list(self._addresses.items()):
            for user, line in list(lines.items()):
                lines[user] = deque(work for work in line if not self._abandoned(work))
                count += len(lines[user])
                if not lines[user]:
                    del lines[user]
            if not lines:
                del self._addresses[address]
        return count

    def put(self, client: tuple[str, str], work: Work) -> None:
        """Add a client's work to the end of its line.

        Args:
            client: the address that the work comes from, and the name of a user there.
            work: the work that waits.

        Raises:
            QueueFull: if as much work waits as may.
            ServerStopping: if the queue is closed: nobody would take the work out.
        """
        address, user = client
        with self._changed:
            if self._closed:
                raise ServerStopping
            if self._drop_abandoned() >= self._limit:
                raise QueueFull(f"{self._limit} requests are waiting already", "try again later")
            lines = self._addresses.setdefault(address, OrderedDict())
            lines.setdefault(user, deque()).append(work)
            self._changed.notify()

    def get(self) -> Work | None:
        """Wait for work, take out what is next, and put its client at the end of the turns.

        Returns:
            The work, or None when the queue is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._addresses or self._closed)
            if self._closed:
                return None
            address, lines = self._addresses.popitem(last=False)
            user, line = lines.popitem(last=False)
            work = line.popleft()
            if line:
                lines[user] = line
            if lines:
                self._addresses[address] = lines
            return work

    def close(self) -> list[Work]:
        """Take no more work, let `get` return None; return the work that was waiting."""
        with self._changed:
            self._closed = True
            waiting = [
                work
                for lines in self._addresses.values()
                for line in lines.values()
                for work in line
            ]
            self._addresses.clear()
            self._changed.notify_all()
            return waiting
