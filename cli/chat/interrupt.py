"""Ctrl-C during a reply ends the reply; a second one ends the program."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nfox.reply_stream import ReplyStream


@contextmanager
def interruptible(stream: ReplyStream) -> Iterator[None]:
    """Make the first Ctrl-C cancel a reply, and the second raise KeyboardInterrupt."""
    pressed = False

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        stream.cancel()

    previous_handler = signal.signal(signal.SIGINT, on_interrupt)
    try:
        with _silent_keyboard():
            yield
    finally:
        signal.signal(signal.SIGINT, previous_handler)


@contextmanager
def _silent_keyboard() -> Iterator[None]:
    """Keep the terminal from showing what is typed during a reply, in the middle of its text.

    What was typed is not lost: the next prompt reads it.
    """
    if not sys.stdin.isatty() or find_spec("termios") is None:  # Windows has no termios
        yield
        return
    import termios

    attributes = termios.tcgetattr(sys.stdin)
    silent = [*attributes]
    silent[0] &= ~termios.ICRNL  # Enter stays what the prompt takes for Enter
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSANOW, silent)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, attributes)
