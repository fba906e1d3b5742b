"""What colour is behind the text: the terminal is asked (OSC 11), and what is typed meanwhile kept.

Behind that question stands one that every terminal answers (DA1): its answer ends the wait.
"""

from __future__ import annotations

import os
import re
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

_QUESTIONS = "\x1b]11;?\x1b\\\x1b[c"
_ATTRIBUTES = re.compile(rb"\x1b\[\?[\d;]*c")
_COLOR = re.compile(rb"\x1b\]11;([^\x07\x1b]*)(?:\x07|\x1b\\)")
_PARTS = re.compile(r"rgba?:([\da-f]{1,4})/([\da-f]{1,4})/([\da-f]{1,4})", re.IGNORECASE)
_PATIENCE = 1.0  # seconds, for one at the other end of the world


def ask_background() -> tuple[str | None, bytes]:
    """Return the background of the terminal at stdin and stdout as "#rrggbb", or None where it does
    not say, and the bytes that were typed before its answer.
    """
    if find_spec("termios") is None:
        return None, b""
    file, read = sys.stdin.fileno(), b""
    end = time.monotonic() + _PATIENCE
    with _unbuffered(file):
        sys.stdout.write(_QUESTIONS)
        sys.stdout.flush()
        while not _ATTRIBUTES.search(read):
            if not select.select([file], [], [], max(end - time.monotonic(), 0))[0]:
                break
            if not (more := os.read(file, 1 << 12)):
                break
            read += more
    said = _COLOR.search(read)
    color = said and parse_color(said[1].decode(errors="replace"))
    return color, without_answers(read)


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


@contextmanager
def _unbuffered(file: int) -> Iterator[None]:
    """Let what is typed be read at once, and not be shown."""
    import termios

    attributes = termios.tcgetattr(file)
    changed = [*attributes]
    changed[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(file, termios.TCSANOW, changed)
    try:
        yield
    finally:
        termios.tcsetattr(file, termios.TCSANOW, attributes)
