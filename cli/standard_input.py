"""Text from stdin: bytes that are no UTF-8 do not end a command, and a byte order mark is no text.

They come as halves of surrogate pairs (Python's "surrogateescape"), whatever the locale says, and
each becomes U+FFFD where the text is made a message.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from nfox.characters import BEGINNING, BOM, check_escaped
from nfox.errors import UsageError

NAME = "stdin"


class WriteOnlyError(UsageError):
    """Stdin is open for writing alone, as `nohup` opens it in a terminal's place."""


def read_all() -> str:
    """Return all that there is on stdin.

    Raises:
        UsageError: if it cannot be read, if it is UTF-16, or no text.
    """
    escape_invalid_bytes()
    with _refusing():
        beginning = sys.stdin.read(BEGINNING)
        check_escaped(beginning, NAME)  # before gigabytes are read
        text = beginning + sys.stdin.read()
    check_escaped(text, NAME)
    return text.removeprefix(BOM)


def lines() -> Iterator[str]:
    """Yield the lines of stdin as they come.

    Raises:
        UsageError: if it cannot be read, or if the first one is UTF-16, or no text.
    """
    escape_invalid_bytes()
    with _refusing():
        for number, line in enumerate(sys.stdin):
            if number == 0:
                check_escaped(line, NAME)
            yield line if number else line.removeprefix(BOM)


@contextmanager
def _refusing() -> Iterator[None]:
    """Raise UsageError where stdin cannot be read."""
    hint = "lead a file or a pipe to it; </dev/null is an empty one"
    try:
        yield
    except OSError as error:
        error_type = WriteOnlyError if error.errno == errno.EBADF else UsageError
        raise error_type(f"{NAME} cannot be read: {error.strerror}", hint) from error


def escape_invalid_bytes() -> None:
    """Let stdin give bytes that it cannot decode, before anything is read of it."""
    if sys.stdin.errors not in ("surrogateescape", None):  # None: it is made of text already
        sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
