"""A reply on the screen: its text in the marks of its sources, reasoning dim or folded."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.style import Style
from rich.text import Text

from nfox.text.stream import Piece, ThinkSplitter, sanitize

from .terminal_writer import TerminalWriter
from .theme import Screen
from .wrap import Wrapper

if TYPE_CHECKING:
    from nfox.decoding.tree import Source

_FRAME = 0.08  # seconds between two status rows
_DIM = Style(dim=True)


def clean(text: str) -> str:
    """Return a model's text as it may be written to a terminal, tabs made visible as spaces."""
    return sanitize(text).replace("\t", "    ")


class ReplyView:
    """Draws one reply, piece by piece.

    Args:
        screen: where.
        fold: leave out what is inside <think>.
        thinking: whether the reply begins inside.
    """

    def __init__(self, screen: Screen, *, fold: bool = False, thinking: bool = False) -> None:
        self.screen = screen
        self.fold = fold
        self._writer = TerminalWriter(screen.console, live=screen.live)
        self._wrapper = Wrapper(lambda: screen.console.width)
        self._thoughts = ThinkSplitter(thinking)
        self._marked: Source = "bonus"
        self._started = False  # whether a visible character was written
        self._folded = 0
        self._drawn = 0.0

    def add(self, pieces: Iterable[Piece], status: Text | None = None) -> None:
        """Append pieces, and draw the status row if it is time to.

        Args:
            pieces: of the reply.
            status: what the row says.
        """
        text = Text()
        for piece in pieces:
            for part, inside in self._thoughts.push(piece):
                text += self._mark(part, inside)
        text = self._wrap(text)
        now = time.monotonic()
        if text or now - self._drawn >= _FRAME:
            self._drawn = now
            self._writer.write(text, status if self.screen.live else None)

    def close(self) -> None:
        """Write what was held back, and end the line."""
        text = Text()
        for part, inside in self._thoughts.finish():
            text += self._mark(part, inside)
        text += self._switch("bonus")
        if self._folded:
            said = f"({self._folded} characters of reasoning folded; /fold off shows it)"
            text += Text(f"\n{said}" if self._started else said, _DIM)
        text = self._wrap(text)
        self._writer.write(text + self._wrapper.finish())
        self._writer.close()

    def _wrap(self, text: Text) -> Text:
        """Break lines between words, on a terminal; a file gets the text as it is."""
        return self._wrapper.feed(text) if self.screen.console.is_terminal else text

    def _mark(self, piece: Piece, inside: bool) -> Text:
        # A file gets the text as it is, tabs and what is in front included.
        terminal = self.screen.console.is_terminal
        content = clean(piece.text) if terminal else sanitize(piece.text)
        if inside and self.fold:
            self._folded += len(content)
            return Text()
        if not self._started:
            content = content.lstrip() if terminal else content
            self._started = bool(content)
        if not content:
            return Text()
        style = self.screen.styles[piece.source]
        return self._switch(piece.source) + Text(content, style + _DIM if inside else style)

    def _switch(self, source: Source) -> Text:
        """Close the brackets of the last source and open those of the next."""
        if source == self._marked:
            return Text()
        closing = self.screen.brackets.get(self._marked, ("", ""))[1]
        opening = self.screen.brackets.get(source, ("", ""))[0]
        self._marked = source
        return Text(closing + opening)
