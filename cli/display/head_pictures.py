"""Pictures of heads: how often each guess is right, and a tree of guesses with what it promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text
from rich.tree import Tree

from .pictures import COLORS
from .theme import Symbols

if TYPE_CHECKING:
    from nfox.decoding.tree_shapes import Accuracy, Shape

_LENGTH = 30  # cells of a whole bar
_GUIDE = 4  # cells that rich puts before a node for each depth
_MOST = 36  # nodes of a tree that are drawn, so that it fits on a screen
_RANKS = {"1st guess": slice(1), "2nd to 5th": slice(1, 5), "6th to 10th": slice(5, 10)}


def bar(shares: Sequence[float], symbols: Symbols) -> Text:
    """Draw up to three shares of one whole, each after the last in another shade and colour."""
    line, whole = Text(), 0.0
    for share, shade, color in zip(shares, symbols.shades, COLORS, strict=False):
        whole += share
        line.append(shade * (round(whole * _LENGTH) - len(line)), color)
    return line


def accuracy_table(accuracy: Sequence[Sequence[float]]) -> str:
    """Write how often the first, one of the first five and one of all guesses are right."""
    lines = ["depth   top-1   top-5  top-10"]
    for depth, row in enumerate(accuracy, 1):
        shares = (row[0], sum(row[:5]), sum(row[:10]))
        lines.append(f"{depth:5}" + "".join(f"{share:8.1%}" for share in shares))
    return "\n".join(lines)


def accuracy_bars(table: str, accuracy: Accuracy, symbols: Symbols) -> Text:
    """Draw how often guesses are right, beside the numbers.

    Args:
        table: of the numbers, one line for its head and one for each depth.
        accuracy: [depth][rank], the numbers.
        symbols: to draw with.
    """
    head, *rows = table.splitlines()
    picture = Text(head)
    for name, shade, color in zip(_RANKS, symbols.shades, COLORS, strict=True):
        picture.append("  ").append(shade, color).append(f" {name}")
    for row, ranks in zip(rows, accuracy, strict=True):
        shares = [sum(ranks[places]) for places in _RANKS.values()]
        picture.append(f"\n{row}  ").append_text(bar(shares, symbols))
    return picture


def tree_picture(shape: Shape, accuracy: Accuracy, symbols: Symbols, most: int = _MOST) -> Group:
    """Draw a tree: each node's rank, and how often it is reached, that is, all of its path right.

    Args:
        shape: of the tree.
        accuracy: [depth][rank] how often guesses are right.
        symbols: to draw with.
        most: nodes to draw below the root, the likeliest ones.
    """
    chances = dict(zip(shape.paths, shape.chances(accuracy), strict=True))
    # A path is no likelier than the one it goes on from, so every node drawn has its parent.
    likeliest = sorted(chances, key=lambda path: (-chances[path], len(path)))[:most]
    indent = _GUIDE * max(map(len, likeliest), default=0) + len("rank 10 ")

    def label(path: tuple[int, ...], chance: float) -> Text:
        name = f"rank {path[-1] + 1}" if path else "root"
        name = name.ljust(indent - _GUIDE * len(path))
        line = Text.assemble(f"{name}{chance:6.1%}  ", bar((chance,), symbols))
        line.rstrip()
        return line

    nodes: dict[tuple[int, ...], Tree] = {(): Tree(label((), 1.0), guide_style="far")}
    for path in sorted(likeliest):
        nodes[path] = nodes[path[:-1]].add(label(path, chances[path]))
    hidden = len(shape) - len(likeliest)
    more = [Text(f"and {hidden} less likely nodes")] if hidden else []
    return Group(nodes[()], *more)
