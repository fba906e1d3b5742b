"""A picture of Jacobi decoding: a row for each state of one block, a column for each position.

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

_MAX_CELLS = 8  # of a token


def trajectory_picture(
    states: Sequence[State], texts: dict[int, str], symbols: Symbols, width: int | None = None
) -> Group:
    """Draw the states of a block, the first one on top.

    Args:
        states: [K + 1][n] token ids, the fixed point last.
        texts: the text of each token, in visible characters.
        symbols: the characters to draw with.
        width: cells of a row; a wider block is folded into several tables. None: it is not folded.
    """
    right, early, wrong = COLORS
    marks = {right: symbols.yes, early: "~", wrong: symbols.no}
    meanings = {right: "right, as all before", early: "right before its turn", wrong: "wrong"}
    legend = (Text(f"{mark} {meanings[color]}", color) for color, mark in marks.items())
    rows: list[list[Text]] = []
    for state in states:
        prefix = common_prefix(state, states[-1])
        cells = []
        for position, (token, final) in enumerate(zip(state, states[-1], strict=True)):
            color = right if position < prefix else early if token == final else wrong
            cells.append(Text(f"{marks[color]}{_short(texts[token], symbols)}", color))
        rows.append(cells)
    return Group(Text("   ").join(legend), *_bands(rows, width))


def _bands(rows: Sequence[Sequence[Text]], width: int | None) -> Iterator[Table | Text]:
    """Yield tables of as many columns as fit into the width, with empty lines between them."""
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
    """Return how many of the first columns fit beside each other into the width, at least one."""
    if width is None:
        return len(columns)
    ends = accumulate(1 + max(cell.cell_len for cell in column) for column in columns)
    return max(1, sum(end <= width for end in ends))


def _short(text: str, symbols: Symbols) -> str:
    """Return a token's text, cut if it is wider than a column may be."""
    if cell_len(text) <= _MAX_CELLS:
        return text
    return set_cell_size(text, _MAX_CELLS - len(symbols.ellipsis)).rstrip() + symbols.ellipsis
