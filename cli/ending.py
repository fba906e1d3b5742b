"""A signal that ends the program lets it end well: what is open is closed and saved, and the
terminal is as it was before.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from . import streams

_NAMES = ("SIGTERM", "SIGHUP", "SIGQUIT")  # the last is that of a key, ^\
_SIGNALS = [number for name in _NAMES if (number := getattr(signal, name, None)) is not None]


class EndedBySignal(SystemExit):
    """Raised where the program is when a signal ends it.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


@contextmanager
def ending_well() -> Iterator[None]:
    """Raise `EndedBySignal` within this context where a signal would end the process in the middle
    of whatever it does; behind the context the process ends by that signal.

    A signal that is ignored, as under nohup, or handled in another way stays so; and so do those by
    which a launcher ends several processes, which may be waiting for each other deep in a library.
    What a signal raises inside a destructor, where Python would print and forget it, is raised once
    more behind that.
    """
    if threading.current_thread() is not threading.main_thread() or "LOCAL_RANK" in os.environ:
        yield
        return
    taken = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL]

    def end(number: int, frame: FrameType | None) -> None:
        for other in taken:  # the first one ends everything: a second must not end what that takes
            signal.signal(other, signal.SIG_IGN)
        streams.forget_hung_up()
        raise EndedBySignal(number)

    for number in taken:
        signal.signal(number, end)
    print_unraisable, sys.unraisablehook = sys.unraisablehook, _raise_later
    try:
        yield
    except EndedBySignal as ended:
        _end_by(ended.number)
        raise
    finally:
        sys.unraisablehook = print_unraisable
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _raise_later(unraisable: sys.UnraisableHookArgs) -> None:
    """Raise what a signal has raised once more, where the next function begins: at once, and still
    within what the signal came to end.
    """
    error = unraisable.exc_value
    if not isinstance(error, KeyboardInterrupt | EndedBySignal):
        sys.__unraisablehook__(unraisable)
        return
    error = error.with_traceback(None)  # which would keep alive what is just destroyed

    def raise_it(frame: FrameType, event: str, argument: object) -> None:
        sys.settrace(None)
        raise error

    sys.settrace(raise_it)  # the only way to raise something in a function that does not look


def _end_by(number: Any) -> None:
    """End this process by a signal, as whoever waits for it expects."""
    streams.finish()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
