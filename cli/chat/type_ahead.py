"""What is typed before there is a prompt is read by the first; what the terminal says, by none."""

from __future__ import annotations

import os
import select
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from typing_extensions import override

from .background import without_answers

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


def drop_answers(session: PromptSession[str]) -> None:
    """Let prompts drop what the terminal answers too late, as if it were a key without a meaning;
    prompt_toolkit takes it for text.
    """
    if find_spec("termios") is None:
        return
    from prompt_toolkit.input.vt100 import Vt100Input
    from prompt_toolkit.input.vt100_parser import Vt100Parser

    class ParserOfKeys(Vt100Parser):
        """Makes keys of what is read from the terminal, and nothing of its answers."""

        @override
        def feed(self, data: str) -> None:
            read = data.encode("utf-8", "surrogateescape")
            super().feed(without_answers(read).decode("utf-8", "surrogateescape"))

    keyboard = session.app.input
    if isinstance(keyboard, Vt100Input):
        keyboard.vt100_parser = ParserOfKeys(keyboard.vt100_parser.feed_key_callback)
