"""The lines of the keys of a TOML text, which its parser does not tell."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

Words = tuple[str, ...]
_QUOTES = ('"""', "'''")


def lines_of(text: str) -> dict[Words, int]:
    """Return the line of every key of a TOML text, by its names from the outermost table on."""
    lines: dict[Words, int] = {}
    table: Words = ()
    inside = False  # a text of several lines
    for number, line in enumerate(text.splitlines(), 1):
        was_inside, inside = inside, inside ^ (sum(map(line.count, _QUOTES)) % 2 == 1)
        if was_inside:
            continue
        if line.lstrip().startswith("["):
            table = next(_keys(line), table)
            lines.setdefault(table, number)
        elif "=" in line:
            for names in _keys(f"{line.partition('=')[0]}= 0"):
                lines.setdefault((*table, *names), number)
    return lines


def _keys(line: str) -> Iterator[Words]:
    """Yield the names in a line that is TOML by itself."""
    try:
        found: Any = tomllib.loads(line)
    except tomllib.TOMLDecodeError:  # within a list or a text of several lines
        return
    names: list[str] = []
    while isinstance(found, dict) and found:
        ((name, found),) = found.items()
        names.append(name)
    yield tuple(names)
