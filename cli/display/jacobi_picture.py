"""A picture of Jacobi decoding: the states of one block below each other, its tokens side by side.

Marks say without colours what the colours say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from rich.cells import cell_len, set_cell_size
from rich.console import Group
from rich.table import Table
from rich.text import Text

from nfox.decoding.cache import common_prefix
from nfox.train.cllm.blocks import State

from .pictures import COLORS
from .theme import Symbols

_WIDEST = 8  # cells of a token


def trajectory_picture(
    states: Sequence[State], texts: dict[int, str], symbols: Symbols, width: int | None = None
) -> Group:
    """Draw the states of a block, the first one on top.

    Args:
        states: [K + 1][n] tokens, the fixed point last.
        texts: of the tokens, in visible characters.
        symbols: to draw with.
        width: in cells; a wider block is folded, its first tokens above the next ones. None: not.
    """
    right, early, wrong = COLORS
    marks = {right: symbols.yes, early: "~", wrong: symbols.no}
    named = {right: "right, as all before", early: "right before its turn", wrong: "wrong"}
    legend = (Text(f"{mark} {named[color]}", color) for color, mark in marks.items())
    rows: list[list[Text]] = []
    for state in states:
        prefix = common_prefix(state, states[-1])
        cells = []
        for place, token in enumerate(state):
            color = right if place < prefix else early if token == states[-1][place] else wrong
            cells.append(Text(f"{marks[color]}{_short(texts[token], symbols)}", color))
        rows.append(cells)
    return Group(Text("   ").join(legend), *_bands(rows, width))


def _bands(rows: Sequence[Sequence[Text]], width: int | None) -> Iterator[Table | Text]:
    """Lay tokens side by side, and go on below where the width ends; an empty line in between."""
    numbers = [Text(f"{number:3}") for number in range(len(rows))]
    columns = list(zip(*rows, strict=True))
    while columns:
        count = _fitting(columns, None if width is None else width - numbers[-1].cell_len)
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=False)
        for _ in range(1 + count):
            table.add_column(no_wrap=True)
        for cells in zip(numbers, *columns[:count], strict=True):
            table.add_row(*cells)
        yield table
        columns = columns[count:]
        if columns:
            yield Text()


def _fitting(columns: Sequence[Sequence[Text]], width: int | None) -> int:
    """Return how many columns have room beside each other, at least one."""
    if width is None:
        return len(columns)
    ends = accumulate(1 + max(cell.cell_len for cell in column) for column in columns)
    return max(1, sum(end <= width for end in ends))


def _short(text: str, symbols: Symbols) -> str:
    """Cut what is wider than a column."""
    if cell_len(text) <= _WIDEST:
        return text
    return set_cell_size(text, _WIDEST - len(symbols.ellipsis)).rstrip() + symbols.ellipsis
