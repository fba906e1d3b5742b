"""A queue that is fair to its clients: whoever asks much waits behind whoever asks little.

Addresses take turns, and within an address its users take turns; the requests of one user are
served in the order in which they came, but for those that are not ready yet.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from nfox.serve.errors import QueueFull, ServerStopping

Work = TypeVar("Work")
Lines = OrderedDict[str, deque[Work]]  # the waiting work of every user of one address


class FairQueue(Generic[Work]):
    """The waiting work of several clients, for any number of threads.

    Work may have to be prepared while it waits: `claim` gives it to whoever does that, `get` only
    when it is ready.

    Args:
        limit: the number of pieces of work that may wait.
        abandoned: whether nobody waits for a piece of work any more; such work takes no place.
        ready: whether a piece of work is prepared.
    """

    def __init__(
        self,
        limit: int,
        abandoned: Callable[[Work], bool] = lambda work: False,
        ready: Callable[[Work], bool] = lambda work: True,
    ) -> None:
        self._limit = limit
        self._abandoned = abandoned
        self._ready = ready
        self._claims: list[tuple[str, Work]] = []  # what is being prepared, and whose it is
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
            self._changed.notify_all()

    def get(self) -> Work | None:
        """Wait for work that is ready, take out what is next, and put its client at the end of the
        turns.

        Returns:
            The work, or None when the queue is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._next())
            found = None if self._closed else self._next()
            if found is None:
                return None
            address, user, work = found
            lines = self._addresses.pop(address)
            line = lines.pop(user)
            line.remove(work)
            if line:
                lines[user] = line
            if lines:
                self._addresses[address] = lines
            return work

    def claim(self, suitable: Callable[[Work], bool] = lambda work: True) -> Work | None:
        """Wait for work that is to be prepared; return it, or None when the queue is closed. It
        stays in the queue. `release` tells that it is ready, or never will be.

        Args:
            suitable: whether a piece of work may be claimed here.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._unprepared(suitable))
            if self._closed:
                return None
            self._claims.append(self._unprepared(suitable)[0])
            return self._claims[-1][1]

    def release(self, work: Work) -> None:
        """Take back a claim on a piece of work."""
        with self._changed:
            self._claims = [claim for claim in self._claims if claim[1] is not work]
            self._changed.notify_all()

    def _waiting(self) -> Iterator[tuple[str, str, Work]]:
        """Yield the addresses and users whose turn it is, with their work."""
        for address, lines in self._addresses.items():
            for user, line in lines.items():
                for work in line:
                    yield address, user, work

    def _next(self) -> tuple[str, str, Work] | None:
        """Return the work that is next, with its address and user."""
        return next((each for each in self._waiting() if self._ready(each[2])), None)

    def _unprepared(self, suitable: Callable[[Work], bool]) -> list[tuple[str, Work]]:
        """Return what may be claimed, first that of the address with the fewest claims."""
        claims = Counter(address for address, _ in self._claims)
        claimed = {id(work) for _, work in self._claims}
        found = [
            (address, work)
            for address, _, work in self._waiting()
            if id(work) not in claimed and not self._ready(work) and suitable(work)
        ]
        return sorted(found, key=lambda each: claims[each[0]])

    def close(self) -> list[Work]:
        """Take no more work, let `get` return None; return the work that was waiting."""
        with self._changed:
            self._closed = True
            waiting = [work for _, _, work in self._waiting()]
            self._addresses.clear()
            self._changed.notify_all()
            return waiting
