"""Markdown that grows: from text to what is certain to be shown, and what may yet change.

The one idea: a block is over when the next begins, and of an unfinished paragraph only that may
change which stands behind a mark that may open something. What is certain is the same however the
text was cut into pieces, and it is said once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.style import Style
from rich.text import Text

from ..text_kinds import IndentedCode
from ..theme import Screen
from ..word_wrap import VERBATIM
from .fenced import FencedCode
from .inline import InlineText, parser
from .lines import Line, fence_of, is_row, is_rule, is_undecided, take_apart
from .runs import DIM, PLAIN, Block, Marked, Run, before, joined, paint
from .table import is_table, table_text

if TYPE_CHECKING:
    from nfox.decoding.tree import Source

_RULE = 24  # cells
_BOLD = Style(bold=True)


class MarkdownStream:
    """Renders one text, piece by piece.

    Args:
        screen: the screen that it is shown on.
    """

    def __init__(self, screen: Screen) -> None:
        parser()  # its imports take longer than a frame
        self._screen = screen
        self._text = ""  # from the beginning of the first block that is not over
        self._sources: list[Source] = []
        self._said = 0  # characters of that block that were certain before
        self._code: FencedCode | None = None
        self._indented = IndentedCode()

    def push(self, text: str, source: Source) -> None:
        """Append text whose tokens are of one source."""
        self._text += text
        self._sources += [source] * len(text)

    def take(self, *, is_end: bool = False) -> tuple[Text, Text]:
        """Return the text that has become certain, and what follows it and may yet change.

        Args:
            is_end: whether nothing follows.
        """
        certain = Text()
        while self._text:
            lines = self._lines()
            block = self._block(lines, len(lines) if is_end else self._text.count("\n"), is_end)
            said, self._said = self._said, 0
            if not block.is_over:
                self._said = max(said, block.certain)
                rest = block.text[self._said :]
                for line in lines[block.lines :]:
                    rest.append("\n").append_text(self._plain(line))
                return certain.append_text(block.text[said : self._said]), rest
            certain.append_text(block.text[said:] if said else block.text)
            for line in lines[: block.lines]:
                self._indented.end(line.text)
            length = sum(len(line.text) + 1 for line in lines[: block.lines])
            if length <= len(self._text):
                certain.append("\n")
            self._text, self._sources = self._text[length:], self._sources[length:]
        return certain, Text()

    def _lines(self) -> list[Marked]:
        """Return the lines that there are, of which the last may not have ended."""
        lines, at = [], 0
        for text in self._text.split("\n"):
            lines.append(Marked(text, self._sources[at : at + len(text)]))
            at += len(text) + 1
        return lines if lines[-1].text else lines[:-1]

    def _plain(self, line: Marked) -> Text:
        return paint([Run(line.text, PLAIN, line.sources, 0)], self._screen)

    def _block(self, lines: Sequence[Marked], ended: int, is_end: bool) -> Block:
        """Return the first block of some lines.

        Args:
            lines: the lines.
            ended: how many of them have ended.
            is_end: whether no line follows.
        """
        if self._code is not None:
            block = self._code.take(lines, ended, is_end=is_end)
            self._code = None if self._code.is_over else self._code
            if block is not None:
                return block
        symbols, first = self._screen.symbols, lines[0]
        line = take_apart(first, symbols)
        if not ended and is_undecided(line):
            return Block(self._plain(first), 1, is_over=False)
        if not first.text.strip():
            return Block(Text(), 1)
        if self._indented.holds(first.text):
            return self._verbatim(first, is_over=is_end or ended > 0)
        if is_rule(first.text):
            return Block(Text(symbols.rule * _RULE, DIM), 1)
        if fence := fence_of(line):
            self._code = FencedCode(
                *fence,
                self._screen,
                is_quoted=line.quotes > 0,
                indent=sum(len(run.text) for run in line.marks if run.style is not DIM),
            )
            label = Run(f"{symbols.rule * 3} {fence[1]}".rstrip(), DIM)
            return Block(paint([*line.marks, label], self._screen), 1)
        if is_row(first.text) and (block := self._table(lines, ended, is_end)):
            return block
        return self._paragraph(line, lines, ended, is_end)

    def _verbatim(self, line: Marked, *, is_over: bool) -> Block:
        """Return a line of code that is none by a fence."""
        code = [Run(line.text, PLAIN, line.sources, 0)]
        text = paint(code, self._screen)
        text.stylize(VERBATIM)
        return Block(text, 1, is_over, len(paint(code, self._screen, closed=False)))

    def _table(self, lines: Sequence[Marked], ended: int, is_end: bool) -> Block | None:
        """Return a table, or None for lines that are none."""
        count = next((n for n, line in enumerate(lines) if not is_row(line.text)), len(lines))
        is_over = is_end or (
            count < len(lines) and (count < ended or bool(lines[count].text.strip()))
        )
        if count > 1 and ended > 1 and is_table(*lines[:2]):
            console = self._screen.console
            shown = (
                lines[:count] if is_over else [*lines[:2], *lines[2:count][-console.height // 2 :]]
            )
            return Block(table_text(shown, self._screen, console.width - 1), count, is_over)
        if is_over or ended > 1:
            return None
        return Block(self._plain(joined(lines[:count])), count, is_over=False)

    def _paragraph(self, first: Line, lines: Sequence[Marked], ended: int, is_end: bool) -> Block:
        """Return a paragraph, an item of a list or a heading."""
        taken, is_over = [first], is_end
        if first.is_heading or not first.content.text.strip() or is_row(lines[0].text):
            is_over = is_end or ended > 0
        else:
            for line in lines[1:]:
                parts = take_apart(line, self._screen.symbols)
                if len(taken) >= ended and is_undecided(parts):
                    break
                if self._begins(line.text, parts, first.quotes):
                    is_over = True
                    break
                taken.append(parts)
        content = joined([line.content for line in taken])
        style = _BOLD if first.is_heading else PLAIN
        inline = InlineText(content, style, self._screen.code_color)
        runs = [*first.marks]
        for run in inline.runs:
            runs.append(run)
            if run.text == "\n" and run.start is not None:
                runs += taken[content.text.count("\n", 0, run.start) + 1].marks
        certain = 0
        if not is_over:
            certain = len(paint(before(runs, inline.settled()), self._screen, closed=False))
        return Block(paint(runs, self._screen), len(taken), is_over, certain)

    @staticmethod
    def _begins(text: str, line: Line, quotes: int) -> bool:
        """Whether a line begins another block than the one before it."""
        is_other = line.begins or line.quotes != quotes or not line.content.text.strip()
        return is_other or is_rule(text) or is_row(text) or fence_of(line) is not None
