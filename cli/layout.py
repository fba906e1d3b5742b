"""Two columns of text: names, and what they mean, wrapped between words to any width.

It takes neither rich nor torch: help must be instant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import wrap

WIDEST_COLUMN = 26
"""Of names, in characters; a longer name has a row of its own."""
_LEAST_TEXT = 20
_LEAST_WIDTH = 20  # below it the terminal breaks lines: indents would fill them
_NO_BREAK = "\xa0"


def column_of(names: Iterable[str], widest: int = WIDEST_COLUMN) -> int:
    """Return how wide a column for names is: that of the longest name that fits into it."""
    return max((len(name) for name in names if len(name) <= widest), default=0)


def definitions(
    rows: Iterable[tuple[str, str]], width: int, column: int, indent: int = 2
) -> Iterator[str]:
    """Yield the lines of two columns.

    Args:
        rows: names, and what they mean.
        width: of a line.
        column: width of the column of names, see `column_of`.
        indent: spaces before the names.
    """
    width, start = max(width, _LEAST_WIDTH), indent + column + 2
    if width - start < _LEAST_TEXT:  # the meaning stands below its name
        start = 4 * indent
    for name, meaning in rows:
        lines = wrap(meaning, max(width - start, 1), break_on_hyphens=False) or [""]
        first = " " * indent + name
        if len(first) + 2 <= start:
            yield (first.ljust(start) + lines.pop(0)).rstrip().replace(_NO_BREAK, " ")
        else:
            yield from wrap(first, width, subsequent_indent=" " * start, break_on_hyphens=False)
        yield from ((" " * start + line).replace(_NO_BREAK, " ") for line in lines if line)


def unbroken(text: str) -> str:
    """Return a text that `definitions` puts into one row."""
    return text.replace(" ", _NO_BREAK)
