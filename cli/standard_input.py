"""Text from stdin: bytes that are no UTF-8 do not end a command, and a byte order mark is no text.

They come as halves of surrogate pairs (Python's "surrogateescape"), whatever the locale says, and
each becomes U+FFFD where the text is made a message.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from nfox.characters import BEGINNING, BOM, check_escaped

NAME = "stdin"


def read_all() -> str:
    """Return all that there is on stdin.

    Raises:
        UsageError: if it is UTF-16, or no text.
    """
    escape_invalid_bytes()
    beginning = sys.stdin.read(BEGINNING)
    check_escaped(beginning, NAME)  # before gigabytes are read
    text = beginning + sys.stdin.read()
    check_escaped(text, NAME)
    return text.removeprefix(BOM)


def lines() -> Iterator[str]:
    """Yield the lines of stdin as they come.

    Raises:
        UsageError: if the first one is UTF-16, or no text.
    """
    escape_invalid_bytes()
    for number, line in enumerate(sys.stdin):
        if number == 0:
            check_escaped(line, NAME)
        yield line if number else line.removeprefix(BOM)


def escape_invalid_bytes() -> None:
    """Let stdin give bytes that it cannot decode, before anything is read of it."""
    if sys.stdin.errors not in ("surrogateescape", None):  # None: it is made of text already
        sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
