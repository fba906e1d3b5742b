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
    try:
        yield Chat(process, ours, theirs)
    finally:
        process.kill()
        process.wait(60)
        os.close(ours)
        os.close(theirs)
