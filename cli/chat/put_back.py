"""Messages that could not be answered, as they come back to be changed: nothing else may leave the
screen for them, or nobody would see what was wrong.

Rich is imported late: the help of the program does without.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

_MOST_ROWS = 4


def in_sight(start: str, last: str, say: Callable[[str], None]) -> str:
    """Return the text that a line starts with: none, and that is said, if it is what was typed
    last, which the history of inputs has, and it is long.

    Args:
        start: the text that it would start with.
        last: what was typed last.
        say: takes a line for the person.
    """
    from rich.cells import cell_len

    columns = shutil.get_terminal_size().columns
    rows = sum(1 + cell_len(line) // columns for line in start.split("\n"))
    if start.split() != last.split() or rows <= _MOST_ROWS:
        return start
    say("the Up arrow brings your message back")
    return ""


def in_brackets(start: str) -> str:
    """Return what stands before a line in place of the text that it would start with: its beginning
    in brackets, nothing for none.
    """
    from ..display.excerpt import excerpt

    return f"[{excerpt(start, shutil.get_terminal_size().columns, '...')}] " if start else ""
