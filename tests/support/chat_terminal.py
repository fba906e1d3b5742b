"""The chat in a pseudo-terminal, typed at as the benchmark of odd commands does."""

from __future__ import annotations

import os
import pty
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import programs

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from commands import Typist, fuzz

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


@contextmanager
def chatting(folder: Path, *arguments: str, **env: str) -> Iterator[Chat]:
    """Start a chat in `folder`/work, whose state is in `folder`/state; end it behind the block."""
    work = folder / "work"
    work.mkdir(exist_ok=True)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    own = {"XDG_STATE_HOME": str(folder / "state"), "TERM": "xterm-256color"}
    process = programs.start(
        *arguments,
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        cwd=work,
        env={**programs.ENVIRONMENT, **own, "PROMPT_TOOLKIT_NO_CPR": "1", **env},
        terminal=True,
    )
    chat = Chat(process, ours, theirs)
    try:
        yield chat
    finally:
        process.kill()
        process.wait(60)
        if chat.ours >= 0:
            chat.hang_up()
