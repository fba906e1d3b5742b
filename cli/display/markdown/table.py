"""Tables, laid out by rich once all their rows are known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.style import Style
from rich.table import Table
from rich.text import Text

from ..theme import Screen
from .inline import InlineText
from .runs import Marked, paint

_DELIMITER = re.compile(r" *\|?(?: *:?-+:? *\|)* *:?-+:? *\|? *")
_BAR = re.compile(r"(?<!\\)\|")
_BOLD = Style(bold=True)


def is_table(heads: Marked, delimiters: Marked) -> bool:
    """Whether two lines are the first ones of a table."""
    is_delimiter = _DELIMITER.fullmatch(delimiters.text) is not None
    return is_delimiter and 0 < len(_cells(heads)) == len(_cells(delimiters))


def table_text(rows: Sequence[Marked], screen: Screen, width: int) -> Text:
    """Return a table as lines.

    Args:
        rows: its lines: headings, delimiters, and as many others as there are.
        screen: the screen on which it will stand.
        width: the most cells of a line.
    """
    heads, delimiters, *others = (_cells(row) for row in rows)
    style = box.ASCII2 if screen.symbols.rule == "-" else box.SIMPLE_HEAD
    table = Table(box=style, pad_edge=False, show_edge=False)
    for number in range(max(map(len, (heads, *others)))):
        head = heads[number] if number < len(heads) else Marked("", [])
        mark = delimiters[number].text if number < len(delimiters) else ""
        runs = InlineText(head, _BOLD, screen.code_color).runs
        table.add_column(paint(runs, screen), justify=_alignment(mark), overflow="fold")
    for cells in others:
        runs_of = (InlineText(cell, code=screen.code_color).runs for cell in cells)
        table.add_row(*(paint(runs, screen) for runs in runs_of))
    return _drawn(table, screen, width)


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


def _alignment(delimiter: str) -> Any:
    """Return how the cells below a delimiter such as `:--` are aligned."""
    left, right = delimiter.startswith(":"), delimiter.endswith(":")
    return "center" if left and right else "right" if right else "left"


def _drawn(table: Table, screen: Screen, width: int) -> Text:
    """Return the lines that rich makes of a table, without spaces at their ends."""
    options = screen.console.options.update(width=width)
    rows = []
    for line in screen.console.render_lines(table, options, pad=False):
        row = Text.assemble(*((segment.text, segment.style or "") for segment in line))
        row.rstrip()
        rows.append(row)
    return Text("\n").join(rows)
