"""Terminals for tests: a file that says it is one, and a screen that is read."""

from __future__ import annotations

import io
import re
import unicodedata

import pyte
from rich.cells import cell_len


class Tty(io.StringIO):
    """A file that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Terminal(pyte.HistoryScreen):
    """Wraps a wide character that does not fit into a row, which pyte leaves out."""

    def draw(self, data: str) -> None:
        for character in data:
            if cell_len(character) == 2 and self.cursor.x == self.columns - 1:
                self.cursor.x = self.columns
            super().draw(character)


def bare(text: str) -> str:
    """Return the characters that leave ink, as pyte composes them."""
    return unicodedata.normalize("NFC", re.sub(r"[\s\u200d]", "", text))
