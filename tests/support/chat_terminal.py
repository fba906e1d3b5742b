"""The chat in a pseudo-terminal, typed at as the benchmark of odd commands does."""

from __future__ import annotations

import os
import pty
import select
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import programs

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from commands import fuzz
from typist import Typist

__all__ = ["Chat", "chatting", "fuzz"]


class Chat(Typist):
    """A chat of its own.

    Args:
        process: of it.
        ours: our end of its terminal.
        theirs: its own end, which stays open to be looked at.
    """

    def __init__(self, process: programs.Program, ours: int, theirs: int) -> None:
        super().__init__(ours, lambda: process.poll() is not None)
        self.process, self.ours, self.theirs = process, ours, theirs

    def settings(self) -> list[Any]:
        """Return how the terminal is set."""
        return termios.tcgetattr(self.theirs)

    def hang_up(self) -> None:
        """Close the window."""
        for number in (self.ours, self.theirs):
            os.close(number)
        self.ours = self.theirs = -1

    def keys(self, keys: bytes) -> None:
        self._write(keys)

    def until(self, wanted: bytes) -> bytes:
        """Return what the chat writes up to something, and what came with it."""
        end = time.monotonic() + 90
        while wanted not in self._written:
            assert time.monotonic() < end, self._written[-2000:]
            if select.select([self.ours], [], [], 0.2)[0]:
                self._read()
        written, self._written = self._written, b""
        return written

    def rest(self) -> bytes:
        """Return what is there of what the chat wrote, which has ended."""
        while select.select([self.ours], [], [], 0)[0]:
            self._read()
        written, self._written = self._written, b""
        return written


@contextmanager
def chatting(folder: Path, *arguments: str, prepare: str = "", **env: str) -> Iterator[Chat]:
    """Start a chat in `folder`/work, whose state is in `folder`/state; end it behind the block.

    Args:
        folder: of both.
        arguments: of the program.
        prepare: as for `programs.start`.
        env: variables of its environment.
    """
    work = folder / "work"
    work.mkdir(exist_ok=True)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    own = {"XDG_STATE_HOME": str(folder / "state"), "TERM": "xterm-256color", "VISUAL": "true"}
    own |= dict.fromkeys(("TMUX", "DISPLAY", "WAYLAND_DISPLAY"), "")  # whose clipboard is no test's
    process = programs.start(
        *arguments,
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        cwd=work,
        env={**programs.ENVIRONMENT, **own, "PROMPT_TOOLKIT_NO_CPR": "1", **env},
        terminal=True,
        prepare=prepare,
    )
    chat = Chat(process, ours, theirs)
    try:
        yield chat
    finally:
        process.kill()
        process.wait(60)
        if chat.ours >= 0:
            chat.hang_up()
