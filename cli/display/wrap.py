"""Lines broken between words, while they are being written.

A word waits until it is complete, which the next token shows, and then goes where it fits. Code is
left to the terminal, whose own breaks are not copied along.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from rich.cells import cell_len
from rich.text import Text

_FENCE = "```"
# Wide characters (Chinese, emoji, ...) may stand apart, with what is drawn together with them.
_WIDE = "[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60]"
_UNITS = re.compile(rf"\n|( *)({_WIDE}|(?:(?!{_WIDE})[^ \n])+|)")


class LineWrapper:
    """Breaks the lines of a text that comes in pieces.

    Args:
        width: returns the cells of a row, which may change at any time.
    """

    def __init__(self, width: Callable[[], int]) -> None:
        self._width = width
        self._held = Text()  # a word that may not be complete
        self._column = 0
        self._line_start = ""  # by which a fence of code is recognised
        self._in_code = False
        self._split = False  # whether the last word goes on, being too long to wait

    def feed(self, text: Text) -> Text:
        """Take more text, and return what of it can be written by now, with line breaks in it."""
        return self._place(self._held + text, last=False)

    def finish(self) -> Text:
        """Return what was held back."""
        return self._place(self._held, last=True)

    def _place(self, text: Text, *, last: bool) -> Text:
        """Break a text into lines; hold its last word back unless this is the last text."""
        result, self._held = Text(), Text()
        begin = 0  # where the part begins that is copied without a break
        for match in _UNITS.finditer(text.plain):
            unit, word, end = match.group(), match[2], match.end()
            unfinished = end == len(text) and unit != "\n" and not last
            if unfinished and cell_len(unit) <= self._width():
                result += text[begin : match.start()]
                self._held = text[match.start() :]
                return result
            if self._breaks_before(unit, word):
                result += text[begin : match.start()]
                if word:
                    result.append("\n")
                    self._column = 0
                unit, begin = word or "", match.end(1)
            self._advance(unit)
            self._split = unfinished
        return result + text[begin:]

    def _breaks_before(self, unit: str, word: str | None) -> bool:
        """Whether a word goes into the next row; the spaces before it are then left out."""
        if word is None or self._in_code or self._split or not self._column:
            return False
        return self._column + cell_len(unit) > self._width() >= cell_len(word)

    def _advance(self, unit: str) -> None:
        """Keep track of the cursor's column, and of whether the text is code."""
        if unit == "\n":
            if self._line_start.lstrip().startswith(_FENCE):
                self._in_code = not self._in_code
            self._line_start, self._column = "", 0
            return
        self._line_start += unit if len(self._line_start) < 80 else ""
        column, width = self._column + cell_len(unit), self._width()
        self._column = column if column <= width else (column - 1) % width + 1
