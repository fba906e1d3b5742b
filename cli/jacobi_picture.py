"""A picture of Jacobi decoding: the states of one block below each other, its tokens side by side.

Marks say without colours what the colours say.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Group
from rich.table import Table
from rich.text import Text

from nfox.cache import common_prefix
from nfox.jacobi_blocks import State

from .pictures import COLORS
from .theme import Symbols

_WIDEST = 8  # cells of a token


def trajectory_picture(states: Sequence[State], texts: dict[int, str], symbols: Symbols) -> Group:
    """Draw the states of a block, the first one on top.

    Args:
        states: [K + 1][n] tokens, the fixed point last.
        texts: of the tokens, in visible characters.
        symbols: to draw with.
    """
    right, early, wrong = COLORS
    marks = {right: symbols.yes, early: "~", wrong: symbols.no}
    named = {right: "right, as all before", early: "right before its turn", wrong: "wrong"}
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=False)
    legend = (Text(f"{mark} {named[color]}", color) for color, mark in marks.items())
    for _ in range(1 + len(states[-1])):
        table.add_column(no_wrap=True)
    for number, state in enumerate(states):
        prefix = common_prefix(state, states[-1])
        cells = [Text(f"{number:3}")]
        for place, token in enumerate(state):
            color = right if place < prefix else early if token == states[-1][place] else wrong
            cells.append(Text(f"{marks[color]}{_short(texts[token], symbols)}", color))
        table.add_row(*cells)
    return Group(Text("   ").join(legend), table)


def _short(text: str, symbols: Symbols) -> str:
    """Cut what is wider than a column."""
    if cell_len(text) <= _WIDEST:
        return text
    return set_cell_size(text, _WIDEST - len(symbols.ellipsis)).rstrip() + symbols.ellipsis
