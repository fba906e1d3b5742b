"""A reply on the screen: tokens marked by their source, reasoning dim or folded.

No line break is added: the terminal wraps, so what is copied is what was said, and a widened window
shows it in fewer rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.style import Style
from rich.text import Text

from nfox.controls import sanitize
from nfox.text.pieces import Piece, ThinkSplitter

from .terminal_writer import TerminalWriter
from .theme import Screen

if TYPE_CHECKING:
    from nfox.decoding.tree import Source

_FRAME = 0.08  # seconds between two status rows
_DIM = Style(dim=True)


def clean(text: str) -> str:
    """Return a model's text without control characters, and with spaces instead of tabs."""
    return sanitize(text).replace("\t", "    ")


class ReplyView:
    """Draws one reply, piece by piece.

    Args:
        screen: the screen to draw on.
        fold: leave out what is inside <think>.
        thinking: whether the reply begins inside <think>.
    """

    def __init__(self, screen: Screen, *, fold: bool = False, thinking: bool = False) -> None:
        self.screen = screen
        self.fold = fold
        self._writer = TerminalWriter(screen.console, live=screen.live)
        self._think_splitter = ThinkSplitter(thinking)
        self._source: Source = "bonus"  # of the last piece
        self._started = False  # whether a visible character was written
        self._folded = 0  # characters of reasoning that were left out
        self._drawn_at = 0.0

    def add(self, pieces: Iterable[Piece], status: Text | None = None) -> None:
        """Append pieces of the reply, and draw the status row if it is time to.

        Args:
            pieces: the pieces that follow the last ones.
            status: the text of the status row; None draws no row.
        """
        text = Text()
        for piece in pieces:
            for part, inside_think in self._think_splitter.push(piece):
                text += self._mark(part, inside_think)
        now = time.monotonic()
        if text or now - self._drawn_at >= _FRAME:
            self._drawn_at = now
            self._writer.write(text, status if self.screen.live else None)

    def close(self) -> None:
        """Write what was held back, and end the line."""
        text = Text()
        for part, inside_think in self._think_splitter.finish():
            text += self._mark(part, inside_think)
        text += self._switch("bonus")
        if self._folded:
            note = f"({self._folded} characters of reasoning folded; /fold off shows it)"
            text += Text(f"\n{note}" if self._started else note, _DIM)
        self._writer.write(text)
        self._writer.close()

    def pause(self) -> None:
        """Leave the terminal to the shell, at any moment."""
        self._writer.pause()

    def go_on(self) -> None:
        """Go on where the reply was left: its last line is drawn anew with what follows."""
        self._writer.go_on()

    def _mark(self, piece: Piece, inside_think: bool) -> Text:
        """Return a piece in the style and the brackets of its source."""
        # A file gets the text as it is, tabs and leading spaces included.
        terminal = self.screen.console.is_terminal
        content = clean(piece.text) if terminal else sanitize(piece.text)
        if inside_think and self.fold:
            self._folded += len(content)
            return Text()
        if not self._started:
            content = content.lstrip() if terminal else content
            self._started = bool(content)
        if not content:
            return Text()
        style = self.screen.styles[piece.source]
        style = style + _DIM if inside_think else style
        return self._switch(piece.source) + Text(content, style)

    def _switch(self, source: Source) -> Text:
        """Return the closing bracket of the last source and the opening one of the next."""
        if source == self._source:
            return Text()
        closing = self.screen.brackets.get(self._source, ("", ""))[1]
        opening = self.screen.brackets.get(source, ("", ""))[0]
        self._source = source
        return Text(closing + opening)
