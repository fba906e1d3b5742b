"""Ctrl-Z: the program stops with the terminal as its shell had it, and goes on at `fg`."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from nfox.decoding import clock


def _nothing() -> None:
    pass


@contextmanager
def suspendable(
    pause: Callable[[], object] = _nothing, go_on: Callable[[], object] = _nothing
) -> Iterator[None]:
    """Call `pause` before a stop by Ctrl-Z, and `go_on` behind it; the clock stands meanwhile. Of
    such blocks in one another, the inner one pauses first and goes on last.

    Args:
        pause: is called at any moment, between two instructions: it may write to no stream that
            others write to.
        go_on: the same.
    """
    if not hasattr(signal, "SIGTSTP"):  # Windows
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        pause()
        if callable(previous):
            previous(number, frame)
        elif previous == signal.SIG_DFL:
            clock.stop_process()
        go_on()

    previous = signal.signal(signal.SIGTSTP, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, previous)
