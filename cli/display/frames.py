"""Frames that are drawn one over the other, and leave nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType

from ..suspension import suspendable

_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"  # a terminal that knows it draws a frame at once
# Without a cursor. And a terminal may take an emoji for wider than rich does, or be made narrower:
# a row that wraps would never be erased.
_PLAYING, _AT_REST = "\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h"
# Row by row: tmux keeps what is erased from the top of the screen on among what has passed.
_BACK, _EMPTY, _REST = "\r\x1b[{rows}A", "\x1b[2K", "\x1b[J"


class Frames:
    """Draws frames on a terminal, each over the last.

    Args:
        console: of the terminal; what is higher than it is cut.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows = 0  # of the frame that is to be seen; the cursor stands in the row below it

    def draw(self, frame: RenderableType) -> None:
        """Draw a frame in the place of the last one."""
        with self._console.capture() as captured:
            self._console.print(frame)
        rows = captured.get().split("\n")[:-1][: max(self._console.height - 1, 1)]
        drawn = "".join(f"{_EMPTY}{row}\n" for row in rows)
        before = _BACK.format(rows=self._rows) if self._rows else _PLAYING
        # Noted before: Ctrl-Z comes mostly while it is written, and then erases what there may be.
        self._rows = max(self._rows, len(rows))
        self._console.file.write(f"{_BEGIN}{before}{drawn}{_REST}{_END}")
        self._rows = len(rows)
        self._console.file.flush()

    def erase(self) -> str:
        """Return what erases the frame that is to be seen, and leaves the terminal as it was; the
        next one is drawn where the cursor then stands.
        """
        rows, self._rows = self._rows, 0
        back = _BACK.format(rows=rows)
        return back + f"{_EMPTY}\n" * rows + _REST + back + _AT_REST if rows else ""


@contextmanager
def drawing_frames(console: Console) -> Iterator[Frames]:
    """Draw frames, and nothing of them in the end, or while Ctrl-Z stops the program."""
    frames = Frames(console)

    def pause() -> None:  # past all that is still to be written
        if erase := frames.erase():
            os.write(console.file.fileno(), erase.encode())

    try:
        with suspendable(pause):
            yield frames
    finally:
        console.file.write(frames.erase())
        console.file.flush()
