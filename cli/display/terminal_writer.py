"""Text that is only ever appended, with one status row below its end.

Nothing that was written is drawn again, so nothing can be lost or doubled in the scrollback however
long a paragraph is, and what is copied from the terminal has no breaks that the text has not. The
row below is drawn and erased with the cursor returning to the end of the text.
"""

from __future__ import annotations

import os

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

_JOINER = "\u200d"
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"  # a terminal that knows it draws a frame at once
_MAKE_ROOM = "\x1bD\x1b[A"  # down one row, scrolling where needed, and back up
_SAVE, _RESTORE = "\x1b7", "\x1b8"
_NEXT_ROW = "\x1b[B\r"
# From the row below on: the cursor may stand on the last character of a full row.
_ERASE_BELOW = f"{_SAVE}{_NEXT_ROW}\x1b[J{_RESTORE}"
# While a window shrinks, what is drawn may be wider than it for a moment; a row must not wrap then.
_CUT, _WRAP = "\x1b[?7l", "\x1b[?7h"


class TerminalWriter:
    """Appends text to what was written on a console, and draws a status row below it.

    Args:
        console: the console to write on.
        live: whether to draw status rows.
    """

    def __init__(self, console: Console, *, live: bool) -> None:
        self._console = console
        self._live = live
        self._line = Text()  # what was written since the last newline
        self._held = Text()  # text that waits, so that the cursor never stands behind a full row
        self._has_status = False  # whether a status row is on the screen
        self._was_left = False  # whether the line was left for the shell, and must be begun anew

    def write(self, text: Text, status: Text | None = None) -> None:
        """Append text; draw a status row below it, or with None leave no row there."""
        text = self._held + text
        line = (self._line.plain + text.plain).rpartition("\n")[2]
        held = _last_cluster(text.plain) if self._live and self._fills_row(line) else 0
        cut = len(text) - held
        text, self._held = text[:cut], text[cut:]
        frame = self._render(text)
        if self._was_left:
            self._was_left = self._has_status = False
            frame = self._render(self._line) + frame
        if "\n" in text:
            self._line = text[text.plain.rindex("\n") + 1 :]
        else:
            self._line.append_text(text)
        if self._live:
            erase = _ERASE_BELOW if self._has_status else ""
            frame = _BEGIN + erase + frame + self._row(status) + _END
        self._has_status = self._live and status is not None
        self._console.file.write(frame)
        self._console.file.flush()

    def close(self) -> None:
        """Erase the status row and end the line."""
        live, self._live = self._live, False
        if live and self._has_status:
            self._console.file.write(_ERASE_BELOW)
        self.write(Text("\n") if self._line or self._held else Text())

    def pause(self) -> None:
        """Leave the terminal to the shell: erase the status row, past all that is still to be
        written.
        """
        if self._live and self._has_status:
            os.write(self._console.file.fileno(), _ERASE_BELOW.encode())

    def go_on(self) -> None:
        """Begin the line anew at the next text: what the shell wrote stands between."""
        self._was_left = True

    def _row(self, status: Text | None) -> str:
        """Return what draws a status row, cut at the width, and brings the cursor back."""
        if status is None:
            return ""
        status = status.copy()
        status.truncate(max(self._console.width - 1, 1))
        return _MAKE_ROOM + _SAVE + _NEXT_ROW + _CUT + self._render(status) + _WRAP + _RESTORE

    def _fills_row(self, line: str) -> bool:
        """Whether the cursor would stand behind the last column, where terminals disagree."""
        width, column = self._console.width, 0
        for character in line:
            cells = cell_len(character)
            column = cells if column + cells > width else column + cells
        return column == width

    def _render(self, text: Text) -> str:
        """Return a text with the escape sequences of its styles."""
        if not self._console.is_terminal:  # rich would expand tabs
            return text.plain
        with self._console.capture() as captured:
            self._console.print(text, end="", soft_wrap=True)
        return captured.get()


def _last_cluster(text: str) -> int:
    """Return how many code points at the end of a text make up its last visible character."""
    count = 1
    while count < len(text) and (cell_len(text[-count]) == 0 or text[-count - 1] == _JOINER):
        count += 1
    return min(count, len(text))
