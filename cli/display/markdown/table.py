"""Tables, laid out once all their rows are known."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from rich.style import Style
from rich.text import Text

from ..theme import Screen
from ..word_wrap import VERBATIM
from .inline import InlineText
from .runs import DIM, PLAIN, Marked, paint

_GAP = 2  # cells between two columns
_DELIMITER = re.compile(r" *\|?(?: *:?-+:? *\|)* *:?-+:? *\|? *")
_BAR = re.compile(r"(?<!\\)\|")
_BOLD = Style(bold=True)


def is_table(heads: Marked, delimiters: Marked) -> bool:
    """Whether two lines are the first ones of a table."""
    is_delimiter = _DELIMITER.fullmatch(delimiters.text) is not None
    return is_delimiter and 0 < len(_cells(heads)) == len(_cells(delimiters))


def table_text(rows: Sequence[Marked], screen: Screen, width: int) -> Text:
    """Return a table as lines: headings, a rule, and the rows, with cells folded where they are
    too wide.

    Args:
        rows: its lines: headings, delimiters, and as many others as there are.
        screen: the screen on which it will stand.
        width: the most cells of a line.
    """
    heads, delimiters, *others = (_cells(row) for row in rows)
    sides = [_side(delimiter.text) for delimiter in delimiters]
    texts = [[_painted(cell, screen, _BOLD) for cell in heads]]
    texts += [[_painted(cell, screen) for cell in cells] for cells in others]
    columns = max(map(len, texts))
    for row in texts:
        row += [Text()] * (columns - len(row))
    sides += ["left"] * (columns - len(sides))
    widths = [max(cell.cell_len for cell in column) for column in zip(*texts, strict=True)]
    while sum(widths) + _GAP * (columns - 1) > width and max(widths) > 2:  # wide ones
        widths[widths.index(max(widths))] -= 1
    first, *lines = (_laid_out(row, widths, sides, screen) for row in texts)
    rule = Text(screen.symbols.rule * (sum(widths) + _GAP * (columns - 1)), DIM)
    table = Text("\n").join([*first, rule, *(part for line in lines for part in line)])
    table.stylize(VERBATIM)
    return table


def _painted(cell: Marked, screen: Screen, style: Style = PLAIN) -> Text:
    return paint(InlineText(cell, style, screen.code_color).runs, screen)


def _laid_out(
    row: Sequence[Text], widths: Sequence[int], sides: Sequence[str], screen: Screen
) -> Iterator[Text]:
    """Yield the lines of one row."""
    folded = [
        [cell]
        if cell.cell_len <= width
        else cell.wrap(screen.console, width, overflow="fold", no_wrap=False)
        for cell, width in zip(row, widths, strict=True)
    ]
    for parts in zip_longest(*folded, fillvalue=Text()):
        line, column = Text(), 0
        for part, width, side in zip(parts, widths, sides, strict=True):
            room = width - part.cell_len
            left = {"left": 0, "center": room // 2, "right": room}[side]
            line.append(" " * (column + left - line.cell_len)).append_text(part)
            column += width + _GAP
        line.rstrip()
        yield line


def _cells(row: Marked) -> list[Marked]:
    """Return the cells of a line."""
    ends = [bar.start() for bar in _BAR.finditer(row.text)]
    starts = [end + 1 for end in ends]
    if row.text[starts[-1] :].strip():
        ends.append(len(row.text))
    return [_stripped(row.part(s, e)) for s, e in zip(starts, ends[1:], strict=False)]


def _stripped(cell: Marked) -> Marked:
    start = len(cell.text) - len(cell.text.lstrip())
    return cell.part(start, max(len(cell.text.rstrip()), start))


def _side(delimiter: str) -> str:
    """Return the side at which the cells below a delimiter such as `:--` stand."""
    left, right = delimiter.startswith(":"), delimiter.endswith(":")
    return "center" if left and right else "right" if right else "left"
