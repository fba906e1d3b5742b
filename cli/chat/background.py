"""What colour is behind the text: the terminal is asked (OSC 11), and what is typed meanwhile kept.

Behind that question stands one that every terminal answers (DA1): its answer ends the wait. The
model is loaded between question and answer, so that a terminal that gives none costs no time.
"""

from __future__ import annotations

import os
import re
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec

_QUESTIONS = "\x1b]11;?\x1b\\\x1b[c"
_ATTRIBUTES = re.compile(rb"\x1b\[\?[\d;]*c")
_COLOR = re.compile(rb"\x1b\]11;([^\x07\x1b]*)(?:\x07|\x1b\\)")
_PARTS = re.compile(r"rgba?:([\da-f]{1,4})/([\da-f]{1,4})/([\da-f]{1,4})", re.IGNORECASE)
_PATIENCE = 1.0  # seconds, for one at the other end of the world


@dataclass
class Answer:
    """What the terminal has said of itself.

    Attributes:
        background: as "#rrggbb"; None as long as it is not known.
        typed: the bytes that were typed before the answer.
    """

    background: str | None = None
    typed: bytes = b""


@contextmanager
def asking_background(wanted: bool) -> Iterator[Answer]:
    """Ask the terminal at stdin and stdout for its background, and read the answer behind the
    block, whatever ends that: who else reads would take it for what was typed.

    Args:
        wanted: whether to ask. Keys must then be read as they are typed, and not be shown.

    Yields:
        The answer, which is there behind the block.
    """
    answer = Answer()
    if not wanted or find_spec("termios") is None:
        yield answer
        return
    end = time.monotonic() + _PATIENCE
    sys.stdout.write(_QUESTIONS)
    sys.stdout.flush()
    try:
        yield answer
    finally:
        read = _read_answers(sys.stdin.fileno(), end)
        said = _COLOR.search(read)
        answer.background = said and parse_color(said[1].decode(errors="replace"))
        answer.typed = without_answers(read)


def _read_answers(file: int, end: float) -> bytes:
    """Return what is there of answers, and whatever else was typed, by the end of the wait."""
    read = b""
    with suppress(OSError):  # a window that was closed meanwhile
        while not _ATTRIBUTES.search(read):
            if not select.select([file], [], [], max(end - time.monotonic(), 0))[0]:
                break
            if not (more := os.read(file, 1 << 12)):
                break
            read += more
    return read


def without_answers(read: bytes) -> bytes:
    """Return what was typed without what the terminal answered among it, be it too late."""
    return _ATTRIBUTES.sub(b"", _COLOR.sub(b"", read))


def parse_color(text: str) -> str | None:
    """Return a colour that X11 writes as rgb:r/g/b, of one to four hexadecimal digits each, as
    "#rrggbb"; None for what is none.
    """
    parts = _PARTS.match(text)
    if parts is None:
        return None
    return "#" + "".join(
        f"{int(part, 16) * 255 // (16 ** len(part) - 1):02x}" for part in parts.groups()
    )
