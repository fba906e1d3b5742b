"""The queue of requests: clients take turns, and nobody waits in it in vain."""

from __future__ import annotations

import pytest

from nfox.serve.errors import QueueFull, ServerStopping
from nfox.serve.fair_queue import FairQueue


def put(queue: FairQueue[str], *works: str) -> None:
    """Put work whose first two letters are its address and its user."""
    for work in works:
        queue.put((work[0], work[1]), work)


def test_clients_take_turns() -> None:
    queue = FairQueue[str](limit=100)
    put(queue, "ax1", "ax2", "ax3", "bx1", "cx1", "bx2")
    assert [queue.get() for _ in range(3)] == ["ax1", "bx1", "cx1"]
    put(queue, "cx2")
    assert [queue.get() for _ in range(4)] == ["ax2", "bx2", "cx2", "ax3"]
    assert len(queue) == 0


def test_many_users_of_one_address_take_the_turns_of_one() -> None:
    queue = FairQueue[str](limit=100)
    put(queue, "ax1", "ay1", "az1", "ax2", "bx1", "bx2")
    assert [queue.get() for _ in range(6)] == ["ax1", "bx1", "ay1", "bx2", "az1", "ax2"]


def test_a_full_queue_refuses() -> None:
    queue = FairQueue[str](limit=2)
    put(queue, "ax1", "bx2")
    with pytest.raises(QueueFull, match="2 requests are waiting"):
        put(queue, "cx3")
    assert queue.get() == "ax1"
    put(queue, "cx3")


def test_those_who_have_gone_leave_their_place_to_others() -> None:
    gone: set[str] = set()
    queue = FairQueue[str](2, gone.__contains__)
    put(queue, "ax1", "bx2")
    gone.add("bx2")
    assert len(queue) == 1
    put(queue, "cx3")
    assert [queue.get(), queue.get()] == ["ax1", "cx3"]


def test_a_closed_queue_gives_back_what_waited_and_nothing_more() -> None:
    queue = FairQueue[str](limit=5)
    put(queue, "ax1", "bx1")
    assert sorted(queue.close()) == ["ax1", "bx1"]
    assert queue.get() is None


def test_a_closed_queue_refuses_what_nobody_would_take_out() -> None:
    queue = FairQueue[str](limit=5)
    queue.close()
    with pytest.raises(ServerStopping):
        put(queue, "ax1")
    assert len(queue) == 0
