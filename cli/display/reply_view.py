"""A reply on the screen: tokens marked by their source, thinking dim or hidden, rows that end
between words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from rich.style import Style
from rich.text import Text

from nfox.controls import sanitize
from nfox.counting import counted
from nfox.decoding import clock
from nfox.text.pieces import Piece, ThinkSplitter

from .markdown.stream import MarkdownStream
from .terminal_writer import TerminalWriter
from .text_kinds import IndentedCode, Line
from .theme import Screen
from .word_wrap import VERBATIM

if TYPE_CHECKING:
    from nfox.decoding.tree import Source

_FRAME = 0.03  # seconds between two frames, at least
_SHARE = 0.015  # of the time, that may be spent on drawing
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
        last: draw its last lines alone, so many, once it is closed; None for all as they come.
    """

    def __init__(
        self,
        screen: Screen,
        *,
        fold: bool = False,
        thinking: bool = False,
        last: int | None = None,
    ) -> None:
        self.screen = screen
        self.fold = fold
        self._last = last
        self._writer = TerminalWriter(screen.console, live=screen.live, wraps=screen.wraps_words)
        self._think_splitter = ThinkSplitter(thinking)
        self._markdown = MarkdownStream(screen) if screen.is_markdown else None
        self._text = Text()  # that has not been drawn
        self._line, self._indented = Line(), IndentedCode()  # of what is drawn as it is written
        self._source: Source = "bonus"  # of the last piece
        self._started = False  # whether a visible character was written
        self._folded = 0  # characters of thinking that were left out
        self._last_frame = 0.0  # the seconds that it took
        self._next_frame = 0.0 if last is None else math.inf  # before which nothing is drawn

    def add(self, pieces: Iterable[Piece], status: Callable[[], Text] | None = None) -> None:
        """Append pieces of the reply, and draw them if it is time to.

        Args:
            pieces: the pieces that follow the last ones.
            status: returns the text of the status row; None draws no row.
        """
        for piece in pieces:
            for part, inside_think in self._think_splitter.push(piece):
                self._take(part, inside_think)
        begin = clock.now()
        if begin >= self._next_frame:
            certain, tail = self._markdown.take() if self._markdown else (Text(), Text())
            self._text.append_text(certain)
            self._draw(status() if status and self.screen.live else None, tail)
            end = clock.now()
            # One frame that takes long has imported something; two in a row have much to draw.
            usual, self._last_frame = min(end - begin, self._last_frame), end - begin
            self._next_frame = end + max(_FRAME, usual / _SHARE)

    def close(self) -> None:
        """Write what was held back, and end the line."""
        for part, inside_think in self._think_splitter.finish():
            self._take(part, inside_think)
        self._end_markdown()
        self._switch("bonus")
        if self._folded:
            note = f"({counted(self._folded, 'character')} of thinking hidden; /view raw shows it)"
            self._text.append(f"\n{note}" if self._started else note, _DIM)
        if self._last is not None:
            self._leave_out(self._last)
        self._draw(None, Text())
        self._writer.close()

    def pause(self) -> None:
        """Leave the terminal to the shell, at any moment."""
        self._writer.pause()

    def go_on(self) -> None:
        """Go on where the reply was left: its last line is drawn anew with what follows."""
        self._writer.go_on()

    def _leave_out(self, last: int) -> None:
        """Leave out all lines but the last ones, and say how many."""
        lines = self._text.split("\n")
        if (count := len(lines) - last) > 0:
            note = Text(f"{self.screen.symbols.ellipsis} {counted(count, 'line')} before", _DIM)
            self._text = Text("\n").join([note, *lines[count:]])

    def _draw(self, status: Text | None, tail: Text) -> None:
        text, self._text = self._text, Text()
        self._writer.write(text, status, tail)

    def _end_markdown(self) -> None:
        """Take all of the Markdown there is as certain."""
        if self._markdown is not None:
            self._text.append_text(self._markdown.take(is_end=True)[0])

    def _take(self, piece: Piece, inside_think: bool) -> None:
        """Take a piece of the reply: in the style of its source, or as Markdown."""
        # A file gets the text as it is, tabs and leading spaces included, unless it is rendered.
        terminal = self.screen.console.is_terminal
        is_shown = terminal or self._markdown is not None
        content = clean(piece.text) if is_shown else sanitize(piece.text)
        if inside_think and self.fold:
            self._folded += len(content)
            return
        if not self._started:
            content = content.lstrip() if terminal else content
            self._started = bool(content)
        if not content:
            return
        if self._markdown is not None and not inside_think:
            self._switch("bonus")
            self._markdown.push(content, piece.source)
            return
        self._end_markdown()
        style = self.screen.styles[piece.source]
        style = style + _DIM if inside_think else style
        start = len(self._text)
        self._switch(piece.source)
        for part in content.splitlines(keepends=True):
            self._line.add(part)
            self._text.append(part, style)
            if self._indented.add(part) or self._line.is_code:
                self._text.stylize(VERBATIM, start)
            start = len(self._text)

    def _switch(self, source: Source) -> None:
        """Write the closing bracket of the last source and the opening one of the next."""
        if source != self._source:
            closing = self.screen.brackets.get(self._source, ("", ""))[1]
            opening = self.screen.brackets.get(source, ("", ""))[0]
            self._text.append(closing + opening)
            self._source = source
