"""What the keyboard and signals do while nothing is read from them.

Ctrl-C during a reply ends the reply; a second one ends the program. Ctrl-Z stops it, with the
terminal as it was before, until `fg`. What is typed meanwhile does not show in the middle of a
text, and is not lost: the next prompt reads it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..suspension import suspendable

if TYPE_CHECKING:
    from prompt_toolkit.application import Application

    from nfox.reply_stream import ReplyStream


class SecondInterrupt(KeyboardInterrupt):
    """Ctrl-C while a reply that it has ended already goes on: it ends the program."""


class Turn:
    """A line that is read and then handled, which Ctrl-C ends.

    Attributes:
        runs: whether there is anything to end. Where this is assigned, and no function is called
            before the next `try`, no interrupt comes outside of that.
    """

    def __init__(self) -> None:
        self.runs = False


@contextmanager
def _handled_by(on_interrupt: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let a function handle Ctrl-C."""
    previous_handler = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous_handler)


@contextmanager
def interrupting(turn: Turn) -> Iterator[None]:
    """Make Ctrl-C raise KeyboardInterrupt while a turn runs, and do nothing between two of them:
    what ends there is the chat, whose conversation must be kept.
    """

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if turn.runs:
            raise KeyboardInterrupt

    with _handled_by(on_interrupt):
        yield


@contextmanager
def pressing(application: Application[str]) -> Iterator[None]:
    """Make an interrupt a key that is pressed, while prompt_toolkit reads keys: an exception in the
    middle of its work would leave it half done, and no prompt could follow.

    Args:
        application: of the prompt, which handles no signals itself.
    """

    def press() -> None:
        if application.is_running and not application.is_done:
            application.key_processor.send_sigint()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if application.loop is not None:
            application.loop.call_soon_threadsafe(press)

    with _handled_by(on_interrupt):
        yield


@contextmanager
def interruptible(stream: ReplyStream) -> Iterator[None]:
    """Make the first Ctrl-C cancel a reply, and the second raise SecondInterrupt; a third one must
    not end what the second one leads to.

    Args:
        stream: the reply on its way.
    """
    pressed, over = 0, False

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed += not over
        if pressed == 1:
            stream.cancel()
        elif pressed == 2 and not over:
            raise KeyboardInterrupt

    previous_handler = signal.signal(signal.SIGINT, on_interrupt)
    try:
        with silent_keyboard():
            yield
    except KeyboardInterrupt as interrupt:
        raise SecondInterrupt from interrupt
    finally:
        over = True  # before any call, in which an interrupt may come
        signal.signal(signal.SIGINT, signal.SIG_IGN if pressed > 1 else previous_handler)


@contextmanager
def silent_keyboard(*, by_key: bool = False) -> Iterator[None]:
    """Keep the terminal from showing what is typed, but for while Ctrl-Z stops the program, or it
    works in the background: who sets the terminal from there is stopped.

    Args:
        by_key: let keys be read as they are typed, with Enter what a prompt that reads keys takes
            for Enter; where lines are read, a line would never end with it. Who needs keys is
            stopped in the background.
    """

    def may_set() -> bool:
        return by_key or not _is_in_background(sys.stdin.fileno())

    # Windows has no termios. What is set while a job in the background begins is its shell's line.
    if not sys.stdin.isatty() or find_spec("termios") is None or not may_set():
        with suspendable():
            yield
        return
    import termios

    attributes = termios.tcgetattr(sys.stdin)
    silent = [*attributes]
    silent[3] &= ~termios.ECHO
    if by_key:
        silent[0] &= ~termios.ICRNL
        silent[3] &= ~termios.ICANON

    def set_to(wanted: list[Any]) -> None:
        with suppress(termios.error):  # a window that was closed meanwhile
            if may_set():
                termios.tcsetattr(sys.stdin, termios.TCSANOW, wanted)

    set_to(silent)
    try:
        with suspendable(partial(set_to, attributes), partial(set_to, silent)):
            yield
    finally:
        set_to(attributes)


def _is_in_background(terminal: int) -> bool:
    """Whether another job of the session has the terminal, as behind `&` or `bg`."""
    try:
        return os.tcgetpgrp(terminal) != os.getpgrp()
    except OSError:  # it is not the session's own: anybody may set it
        return False
