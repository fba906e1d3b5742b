"""Ctrl-Z: the program stops with the terminal as its shell had it, and goes on at `fg`."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from nfox.decoding import clock


@contextmanager
def suspendable(pause: Callable[[], None], go_on: Callable[[], None]) -> Iterator[None]:
    """Call `pause` before a stop by Ctrl-Z, and `go_on` behind it. Of such blocks in one another,
    the inner one pauses first and goes on last.

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
            innermost = signal.signal(number, signal.SIG_DFL)
            begin = time.perf_counter()
            signal.raise_signal(number)  # to this thread: it stops here, and not a little later
            clock.leave_out(time.perf_counter() - begin)
            signal.signal(number, innermost)
        go_on()

    previous = signal.signal(signal.SIGTSTP, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, previous)
