"""A signal that ends the program lets it end well: what is open is closed and saved, and the
terminal is as it was before.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from _thread import interrupt_main
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
    An interrupt inside a destructor, which Python would print and forget, comes again behind it.
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
    print_unraisable, sys.unraisablehook = sys.unraisablehook, _interrupt_again
    try:
        yield
    except EndedBySignal as ended:
        _end_by(ended.number)
        raise
    finally:
        sys.unraisablehook = print_unraisable
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _interrupt_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Raise a KeyboardInterrupt once more, in a moment: here, too, nothing could be raised."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        threading.Timer(0.01, _interrupt_main_thread).start()
    else:
        sys.__unraisablehook__(unraisable)


def _interrupt_main_thread() -> None:
    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):  # which also ends its waiting
        signal.pthread_kill(main, signal.SIGINT)
    else:
        interrupt_main()


def _end_by(number: Any) -> None:
    """End this process by a signal, as whoever waits for it expects."""
    streams.finish()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
