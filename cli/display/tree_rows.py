"""A tree in rows of text: branches with what is below them, and the lines that lead there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.style import Style
from rich.text import Text

from .theme import Symbols

GAP = "  "
"""What stands between things that are side by side."""
_DIM = Style(dim=True)
_NARROWEST = 12  # cells of a row, however deep it stands


@dataclass
class Branch:
    """Tokens one after the other, or side by side, and what follows the last of them.

    Args:
        mark: what stands before the first of them.
        link: what stands between them.
        parts: the tokens, each with the number of drafted ones that it stands for.
        is_cut: whether they are cut at the end of a row, instead of going on in another.
        more: how many were left out behind them.
        below: what follows the last of them.
    """

    mark: str
    link: str
    parts: list[tuple[Text, int]]
    is_cut: bool = False
    more: int = 0
    below: list[Branch] = field(default_factory=list)

    def rows(self, width: int) -> Iterator[Text]:
        """Yield the rows of its own tokens, of so many cells."""
        if self.is_cut:
            yield self._cut(width)
            return
        row = Text(self.mark)
        for number, (part, _) in enumerate(self.parts):
            joint = self.link if number else ""
            if number and row.cell_len + len(joint) + part.cell_len > width:
                yield row
                row, joint = Text(" " * len(self.mark)), self.link.lstrip()
            row = row + Text(joint, _DIM) + part
        yield row

    def _cut(self, width: int) -> Text:
        """Return one row: as many tokens as fit, at least one, and how many more there are."""
        for shown in range(min(len(self.parts), width), -1, -1):
            more = self.more + sum(count for _, count in self.parts[shown:])
            row = Text(self.mark) + Text(self.link, _DIM).join(
                part for part, _ in self.parts[:shown]
            )
            if more:
                row += Text(f"{GAP if shown else ''}and {more} more", _DIM)
            if row.cell_len <= width or shown <= 1:
                break
        return row


def drawn(branches: Sequence[Branch], symbols: Symbols, width: int) -> Iterator[Text]:
    """Yield the rows of branches, and of all below them, with the lines that lead to them."""
    fork, corner, line, _ = symbols.guides
    for number, branch in enumerate(branches, 1):
        lead, rest = (corner, GAP) if number == len(branches) else (fork, line)
        inner = max(width - len(lead), _NARROWEST)
        for row in branch.rows(inner):
            if row.cell_len > inner:  # half a number would be another one
                row.truncate(inner - len(symbols.ellipsis))
                row = row + Text(symbols.ellipsis, _DIM)
            yield Text(lead, _DIM) + row
            lead = rest
        for row in drawn(branch.below, symbols, inner):
            yield Text(rest, _DIM) + row
