"""A block of code between fences, as its lines come: coloured a few lines at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.text import Text

from ..theme import Screen
from ..word_wrap import VERBATIM
from .code import CodeColors
from .lines import closes
from .runs import DIM, Block, Marked, Run, joined, paint

_BATCH = 8  # lines that are coloured at once
_QUOTES = re.compile(r"( *> ?)+")


class FencedCode:
    """The code behind a fence.

    Args:
        mark: the fence that has opened it.
        language: as it is named behind that fence.
        screen: the screen that the code is shown on.
        is_quoted: whether it stands in a quote.
        indent: the cells before its opening rule, behind the bar of that quote.

    Attributes:
        is_over: whether it has ended.
    """

    def __init__(
        self, mark: str, language: str, screen: Screen, *, is_quoted: bool, indent: int
    ) -> None:
        self.is_over = False
        self._mark = mark
        self._screen = screen
        self._colors = CodeColors(language, screen.syntax)
        self._rule = Run(screen.symbols.rule * 3, DIM)
        self._indent = Run(" " * indent)
        self._quote = [Run(screen.symbols.quote, DIM)] if is_quoted else []

    def take(self, lines: Sequence[Marked], ended: int, *, is_end: bool) -> Block | None:
        """Return the next lines, or the line that closes the block; None if it has ended without
        one, as in a quote it may.

        Args:
            lines: the lines that follow.
            ended: how many of them have ended.
            is_end: whether no line follows them.
        """
        count = 0
        while count < min(ended, _BATCH):
            code = self._inner(lines[count])
            if code is None or closes(code.text, self._mark):
                break
            count += 1
        else:
            if count < _BATCH and not is_end:
                return Block(self._text(self._unclosed(lines)), len(lines), is_over=False)
        if count:
            block = Block(self._text(lines[:count]), count)
            inner = filter(None, map(self._inner, lines[:count]))
            self._colors.keep("".join(f"{line.text}\n" for line in inner))
            return block
        self.is_over = True
        if self._inner(lines[0]) is None:
            return None
        return Block(paint([*self._quote, self._indent, self._rule], self._screen), 1)

    def _inner(self, line: Marked) -> Marked | None:
        """Return a line without the marks of the quote that it should stand in; None if it does
        not.
        """
        if not self._quote:
            return line
        marks = _QUOTES.match(line.text)
        return line.part(marks.end()) if marks else None

    @staticmethod
    def _unclosed(lines: Sequence[Marked]) -> Sequence[Marked]:
        """Return lines without the last, if that may be going to close the block."""
        last = lines[-1].text.strip(" >")
        return lines[:-1] if last and set(last) <= {"`", "~"} else lines

    def _text(self, lines: Sequence[Marked]) -> Text:
        """Return lines of code in colours."""
        inner = [self._inner(line) or line for line in lines]
        runs = [*self._quote] if inner else []
        for run in self._colors.runs(joined(inner)):
            first, *others = run.text.split("\n") if self._quote else [run.text]
            runs.append(run._replace(text=first, sources=run.sources[: len(first)]))
            at = len(first)
            for text in others:
                part = run.sources[at + 1 : at + 1 + len(text)]
                runs += [Run("\n"), *self._quote, run._replace(text=text, sources=part)]
                at += 1 + len(text)
        code = paint(runs, self._screen)
        code.stylize(VERBATIM)
        return code
