"""What is typed before there is a prompt: the first one reads it."""

from __future__ import annotations

import os
import select
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession


def typed_early() -> bytes:
    """Return the lines that were typed before the terminal was set for a prompt that reads keys."""
    if find_spec("termios") is None:
        return b""
    typed, file = b"", sys.stdin.fileno()
    while select.select([file], [], [], 0)[0] and (line := os.read(file, 1 << 12)):
        typed += line
    return typed


def type_again(session: PromptSession[str], typed: bytes) -> None:
    """Let the first prompt read keys that were read before it.

    Args:
        session: which is to read them.
        typed: the bytes of the keys. The terminal has made another key of their Enter.
    """
    if not typed:
        return
    from prompt_toolkit.input.typeahead import store_typeahead
    from prompt_toolkit.input.vt100_parser import Vt100Parser
    from prompt_toolkit.key_binding import KeyPress

    keys: list[KeyPress] = []
    parser = Vt100Parser(keys.append)
    parser.feed(typed.decode(errors="replace").replace("\n", "\r"))
    parser.flush()
    store_typeahead(session.app.input, keys)
