"""Pictures of heads: how often the guesses of each rank are right, and how often the nodes of a
tree are reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text
from rich.tree import Tree

from .pictures import COLORS
from .theme import Symbols

if TYPE_CHECKING:
    from nfox.decoding.tree_shapes import Accuracy, TreeShape

_LENGTH = 30  # cells of a whole bar
_GUIDE = 4  # cells that rich puts before a node for each depth
_MAX_NODES = 36  # of a tree that are drawn, so that it fits on a screen
_RANKS = {"1st guess": slice(1), "2nd to 5th": slice(1, 5), "6th to 10th": slice(5, 10)}


def stacked_bar(shares: Sequence[float], symbols: Symbols) -> Text:
    """Draw up to three shares of one bar, one after the other, each in its shade and colour."""
    line, total = Text(), 0.0
    for share, shade, color in zip(shares, symbols.shades, COLORS, strict=False):
        total += share
        line.append(shade * (round(total * _LENGTH) - len(line)), color)
    return line


def accuracy_table(accuracy: Sequence[Sequence[float]]) -> str:
    """Return a table of how often the first, one of the first five and one of the first ten guesses
    are right.

    Args:
        accuracy: [depth][rank] how often the guess of this rank is right.
    """
    lines = ["depth   top-1   top-5  top-10"]
    for depth, row in enumerate(accuracy, 1):
        shares = (row[0], sum(row[:5]), sum(row[:10]))
        lines.append(f"{depth:5}" + "".join(f"{share:8.1%}" for share in shares))
    return "\n".join(lines)


def accuracy_bars(table: str, accuracy: Accuracy, symbols: Symbols) -> Text:
    """Draw how often guesses are right as bars, behind the lines of a table.

    Args:
        table: a line of headings, and a line for each depth.
        accuracy: [depth][rank] how often the guess of this rank is right.
        symbols: the characters to draw with.
    """
    headings, *rows = table.splitlines()
    picture = Text(headings)
    for name, shade, color in zip(_RANKS, symbols.shades, COLORS, strict=True):
        picture.append("  ").append(shade, color).append(f" {name}")
    for row, ranks in zip(rows, accuracy, strict=True):
        shares = [sum(ranks[group]) for group in _RANKS.values()]
        picture.append(f"\n{row}  ").append_text(stacked_bar(shares, symbols))
    return picture


def tree_picture(
    shape: TreeShape, accuracy: Accuracy, symbols: Symbols, max_nodes: int = _MAX_NODES
) -> Group:
    """Draw a tree: each node's rank, and how often all guesses on the path to it are right.

    Args:
        shape: the shape of the tree.
        accuracy: [depth][rank] how often the guess of this rank is right.
        symbols: the characters to draw with.
        max_nodes: how many nodes are drawn below the root; the likeliest ones are.
    """
    probabilities = dict(zip(shape.paths, shape.path_probabilities(accuracy), strict=True))
    # A path is no likelier than the one it goes on from, so every node drawn has its parent.
    likeliest = sorted(probabilities, key=lambda path: (-probabilities[path], len(path)))
    likeliest = likeliest[:max_nodes]
    indent = _GUIDE * max(map(len, likeliest), default=0) + len("rank 10 ")

    def label(path: tuple[int, ...], probability: float) -> Text:
        name = f"rank {path[-1] + 1}" if path else "root"
        name = name.ljust(indent - _GUIDE * len(path))
        line = Text.assemble(f"{name}{probability:6.1%}  ", stacked_bar((probability,), symbols))
        line.rstrip()
        return line

    nodes: dict[tuple[int, ...], Tree] = {(): Tree(label((), 1.0), guide_style="far")}
    for path in sorted(likeliest):
        nodes[path] = nodes[path[:-1]].add(label(path, probabilities[path]))
    hidden = len(shape) - len(likeliest)
    more = [Text(f"and {hidden} less likely nodes")] if hidden else []
    return Group(nodes[()], *more)
