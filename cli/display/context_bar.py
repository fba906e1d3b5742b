"""What the context holds, as a bar and in numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..chat.context_use import ContextUse
    from .theme import Symbols

_SHOWN = 12  # turns that have a line of their own, the newest
_NAME, _COUNT = 16, 8  # cells


def context_bar(use: ContextUse, symbols: Symbols, width: int) -> str:
    """Return a bar of the context: what takes it up in two shades by turns, then the room left.

    Args:
        use: what takes it up.
        symbols: the characters of the terminal.
        width: of the bar, in cells.
    """
    parts = [use.system, *(count for count, _ in use.turns[use.unread :]), use.template]
    bar, taken = "", 0
    for number, part in enumerate(parts):
        taken += part
        bar += symbols.shades[number % 2] * (round(taken / use.size * width) - len(bar))
    return bar[:width].ljust(width, symbols.shades[2])


def context_lines(use: ContextUse, cut: Callable[[str, int], str], width: int) -> Iterator[str]:
    """Yield lines about what takes up the context, and what is left.

    Args:
        use: what takes it up.
        cut: returns the beginning of a text, in so many cells.
        width: of a line, in cells.
    """
    room = max(use.size - use.used, 0)
    yield f"{use.used:,} of {use.size:,} tokens, {use.used / use.size:.0%}; room for {room:,}"
    yield _line("system", use.system)
    first = max(len(use.turns) - _SHOWN, use.unread)
    if use.unread:
        yield f"{_turns(1, use.unread)} no longer read"
    if first > use.unread:
        folded = sum(count for count, _ in use.turns[use.unread : first])
        yield _line(_turns(use.unread + 1, first), folded)
    for number, (count, question) in enumerate(use.turns[first:], first + 1):
        yield f"{_line(f'turn {number}', count)}  {cut(question, max(width - 28, 8))}"
    yield _line("template", use.template)


def _turns(first: int, last: int) -> str:
    return f"turn {first}" if first == last else f"turns {first} to {last}"


def _line(name: str, count: int) -> str:
    return f"{name.ljust(_NAME)}{count:>{_COUNT},}"
