"""The beginning of a text in one line, wherever a whole one has no room."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size

from nfox.controls import sanitize

_ENOUGH = 16  # characters for each cell, of a text that may be all of a book


def excerpt(text: str, cells: int, ellipsis: str = "…") -> str:
    """Return the beginning of a text's first paragraph in one line of so many cells at most.

    Args:
        text: a text of any length.
        cells: of the line.
        ellipsis: what stands where it was cut.
    """
    whole = text.strip()
    begun = whole[: cells * _ENOUGH].partition("\n\n")[0]
    line = " ".join(sanitize(begun).split())
    if len(begun) == len(whole) and cell_len(line) <= cells:
        return line
    return set_cell_size(line, min(cells - cell_len(ellipsis), cell_len(line))).rstrip() + ellipsis
