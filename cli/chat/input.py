"""How messages are read: with prompt_toolkit at a real terminal, with input() anywhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override

from nfox.characters import whole_characters

from ..standard_input import escape_invalid_bytes
from .saved_files import state_folder

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings

PROMPT, CONTINUED = "> ", "  "
Reader = Callable[[str], str]
"""Reads one message, given the text that stands in the line at first. EOFError ends the chat."""
Complete = Callable[[str], Iterable[str]]
"""Returns the words to which the end of what was typed can be completed."""


def make_reader(complete: Complete, *, plain: bool, multiline: bool, remember: bool) -> Reader:
    """Return the reader for this terminal.

    Args:
        complete: completes commands.
        plain: use input() in any case.
        multiline: whether Enter makes a new line.
        remember: save what was typed in a file, to be called up again.
    """
    if plain or os.environ.get("TERM") == "dumb" or not sys.stdin.isatty():
        return _read_lines if multiline else _read_line
    session = _session(complete, multiline, _history(remember))
    return lambda start: whole_characters(session.prompt(default=start))


def _read_line(start: str) -> str:
    """Read a line; an empty one stands for the text that it would have started with."""
    escape_invalid_bytes()
    return whole_characters(input(f"{PROMPT}[{start}] " if start else PROMPT)) or start


def _read_lines(start: str) -> str:
    """Read lines up to an empty one."""
    lines = [_read_line(start)]
    while lines[-1]:
        lines.append(whole_characters(input(CONTINUED)))
    return "\n".join(lines[:-1])


def _session(complete: Complete, multiline: bool, history: History) -> PromptSession[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.formatted_text import FormattedText
    from prompt_toolkit.output import ColorDepth

    class CommandCompleter(Completer):
        """Completes the last word by `complete`."""

        @override
        def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
            typed = document.text_before_cursor
            start = typed.rpartition(" ")[2]
            return (Completion(word, -len(start)) for word in complete(typed))

    return PromptSession(
        FormattedText([("bold", PROMPT)]),
        multiline=True,
        prompt_continuation=CONTINUED,
        key_bindings=_keys(multiline),
        history=history,
        auto_suggest=AutoSuggestFromHistory(),
        completer=CommandCompleter(),
        complete_while_typing=False,
        color_depth=ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None,
        reserve_space_for_menu=4,
    )


def _keys(multiline: bool) -> KeyBindings:
    """Return the keys: Enter sends, Alt-Enter or Ctrl-J makes a new line; with `multiline` Enter
    makes a new line and Alt-Enter sends.
    """
    from prompt_toolkit.input.ansi_escape_sequences import ANSI_SEQUENCES
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.keys import Keys

    # Shift-Enter, as terminals with the kitty protocol send it; unknown, it would be typed.
    ANSI_SEQUENCES["\x1b[13;2u"] = Keys.ControlJ
    keys = KeyBindings()

    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    def newline(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    keys.add("enter")(newline if multiline else send)
    keys.add("escape", "enter")(send if multiline else newline)
    keys.add("c-j")(newline)
    return keys


def _history(remember: bool) -> History:
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    class PrivateHistory(FileHistory):
        """Leaves out of the file what begins with a space."""

        @override
        def store_string(self, string: str) -> None:
            if not string.startswith(" "):
                super().store_string(whole_characters(string))

    if not remember:
        return InMemoryHistory()
    try:
        file = state_folder() / "input_history"
        Path(file).touch(mode=0o600)
    except OSError:  # a home that cannot be written to is no reason not to chat
        return InMemoryHistory()
    return PrivateHistory(str(file))
