"""Text that is only ever appended, with a few rows behind its end that come and go.

Nothing that was written is drawn again, so nothing can be lost or doubled in the scrollback however
long a paragraph is. What may yet change, the last word, which may go into the next row, and a
status row are drawn and erased with the cursor returning to the end of the text.
"""

from __future__ import annotations

import os

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from .word_wrap import Place, column_behind, lead_of, unfinished, wrapped

_JOINER = "\u200d"
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"  # a terminal that knows it draws a frame at once
_DOWN = "\x1bD"  # one row, scrolling where needed
_SAVE, _RESTORE = "\x1b7", "\x1b8"
_NEXT_ROW = "\x1b[B\r"
# From the row below on: the cursor may stand on the last character of a full row.
_ERASE_BEHIND = "\x1b[K"
_ERASE_BELOW = f"{_SAVE}{_NEXT_ROW}\x1b[J{_RESTORE}"
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"  # the cursor: it would stand before what may yet change
# While a window shrinks, what is drawn may be wider than it for a moment; a row must not wrap then.
_CUT, _WRAP = "\x1b[?7l", "\x1b[?7h"


class TerminalWriter:
    """Appends text to what was written on a console, and draws below it what is to go again: the
    end of the text that may yet change, and a status row.

    Args:
        console: the console to write on.
        live: whether to draw what is to go again.
        wraps: whether rows end between words; elsewhere the terminal breaks them, and what is
            copied from it has no breaks that the text has not.
    """

    def __init__(self, console: Console, *, live: bool, wraps: bool = False) -> None:
        self._console = console
        self._live = live
        self._wraps = wraps
        self._line = Text()  # what was written since the last newline
        self._lead = ""  # what the line begins with, which may have more rows
        # Text that waits: the last word, and so that the cursor never stands behind a full row.
        self._held = Text()
        self._has_rows = False  # whether rows below the text are on the screen
        self._has_tail = False  # whether something behind it is, in its own row
        self._is_hidden = False  # whether the cursor is
        self._was_left = False  # whether the line was left for the shell, and must be begun anew

    def write(self, text: Text, status: Text | None = None, tail: Text | None = None) -> None:
        """Append text; draw behind it what may yet change, and below that a status row.

        Args:
            text: what is appended.
            status: the status row; None leaves no row there.
            tail: what follows the text as long as nothing else is written.
        """
        text, said = self._next(self._held + text)
        begun, frame, before, opening = self._line, self._render(text), "", ""
        self._line = text[text.plain.rindex("\n") + 1 :] if "\n" in text else begun + text
        self._lead = lead_of(self._lead + said)
        if self._live:
            before, opening = self._erase(), _BEGIN
            if status is not None and not self._is_hidden:
                opening, self._is_hidden = _BEGIN + _HIDE, True
            frame += self._draw_below(self._held + (tail or Text()), status) + _END
        if self._was_left:  # asked as late as can be, since it is left at any moment
            self._was_left, before = False, self._render(begun)
        self._console.file.write(opening + before + frame)
        self._console.file.flush()

    def close(self) -> None:
        """Erase what is to go again, and end the line."""
        live, self._live = self._live, False
        if live:
            self._console.file.write(self._erase() + self._show())
        self.write(Text("\n") if self._line or self._held else Text())

    def pause(self) -> None:
        """Leave the terminal to the shell: erase what is to go again, past all that is still to be
        written.
        """
        if self._live and (frame := self._erase() + self._show()):
            os.write(self._console.file.fileno(), frame.encode())

    def go_on(self) -> None:
        """Begin the line anew at the next text: what the shell wrote stands between."""
        self._was_left = True

    def _next(self, text: Text) -> tuple[Text, str]:
        """Return what of a text is to be written now, with its breaks and without, and hold the
        rest.
        """
        width, place = self._console.width, self._place()
        cut = len(text) - (unfinished(text, place, width) if self._wraps else 0)
        shown = self._wrapped(text[:cut])
        line = (self._line.plain + shown.plain).rpartition("\n")[2]
        if self._live and column_behind(line, width) == width:
            last = _last_cluster(shown.plain)
            shown, cut = shown[: len(shown) - last], cut - last
        self._held = text[cut:]
        return shown, text.plain[:cut]

    def _place(self) -> Place:
        """Return where the text goes on."""
        return Place(self._line.plain, self._lead)

    def _wrapped(self, text: Text) -> Text:
        """Return the text that follows with breaks between words, where that is wished."""
        return wrapped(text, self._place(), self._console.width) if self._wraps else text

    def _show(self) -> str:
        """Return what shows the cursor again, where it is hidden."""
        shown, self._is_hidden = _SHOW if self._is_hidden else "", False
        return shown

    def _erase(self) -> str:
        """Return what erases all behind and below the text."""
        behind = _ERASE_BEHIND if self._has_tail else ""
        return behind + _ERASE_BELOW if self._has_rows else behind

    def _rows(self, tail: Text) -> list[Text]:
        """Return the rows of what follows the text, of which the first goes on behind it. What does
        not fit on half the screen is cut at its beginning.
        """
        width, starts, tail = self._console.width, [0], self._wrapped(tail)
        column = column_behind(self._line.plain, width)
        for index, character in enumerate(tail.plain):
            cells = cell_len(character)
            if character == "\n":
                starts.append(index + 1)
                column = 0
            elif column + cells > width:
                starts.append(index)
                column = cells
            else:
                column += cells
        ends = [*(start for start in starts[1:]), len(tail)]
        rows = [tail[start:end] for start, end in zip(starts, ends, strict=True)]
        for row in rows:
            row.rstrip()
        most = max(self._console.height // 2, 2)
        return rows if len(rows) <= most else [Text(), *rows[1 - most :]]

    def _draw_below(self, tail: Text, status: Text | None) -> str:
        """Return what draws the rows that are to go again, and brings the cursor back."""
        rows = self._rows(tail)
        self._has_tail = bool(tail)
        if status is not None:
            row = status.copy()
            row.truncate(max(self._console.width - 1, 1))
            rows.append(row)
        room = len(rows) - 1
        self._has_rows = room > 0
        if not any(rows):
            return ""
        make_room = _DOWN * room + f"\x1b[{room}A" if room else ""
        drawn = _NEXT_ROW.join(self._render(row) for row in rows)
        return make_room + _SAVE + _CUT + drawn + _WRAP + _RESTORE

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
