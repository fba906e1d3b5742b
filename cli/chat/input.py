"""How messages are read: with prompt_toolkit at a real terminal, with input() anywhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from typing_extensions import override

from nfox.characters import whole_characters
from nfox.errors import NfoxError
from nfox.files.reading import describe

from ..errors import report
from ..standard_input import escape_invalid_bytes
from ..state_folder import state_folder
from .background import without_answers
from .editor import edit
from .interrupt import pressing
from .put_back import in_brackets, in_sight
from .saved_files import Keeper, history_file
from .type_ahead import drop_answers, type_again, typed_early

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

PROMPT, CONTINUED = "> ", "  "
Reader = Callable[[str], str]
"""Reads one message, given the text that stands in the line at first. EOFError ends the chat."""
Tell = Callable[[str], None]
"""Takes a line for the person."""
Complete = Callable[[str], Iterable[str]]
"""Returns the words to which the end of what was typed can be completed."""


def reads_keys(*, plain: bool) -> bool:
    """Whether messages are read key by key, and not as the lines that a terminal makes of keys.

    Args:
        plain: whether lines are asked for.
    """
    return not (plain or os.environ.get("TERM") == "dumb") and sys.stdin.isatty()


def make_reader(
    complete: Complete,
    *,
    plain: bool,
    multiline: bool,
    remember: bool,
    say: Tell = lambda line: None,
    typed: bytes = b"",
) -> Reader:
    """Return the reader for this terminal.

    Args:
        complete: completes commands.
        plain: use input() in any case.
        multiline: whether Enter makes a new line.
        remember: save what was typed in a file, to be called up again.
        say: is told where what was typed cannot be saved, or does not come back by itself.
        typed: keys that were read before there was a reader.
    """
    if not reads_keys(plain=plain):
        return _read_lines if multiline else _read_line
    keeper = Keeper("what is typed is", say)
    errors: list[str] = []  # of saving what was typed last
    last = ""
    session = _session(complete, multiline, _history(remember, errors))
    drop_answers(session)
    type_again(session, without_answers(typed + typed_early()))

    def read(start: str) -> str:
        nonlocal last
        errors.clear()
        start = in_sight(start, last, say)
        with pressing(session.app):
            text = last = whole_characters(session.prompt(default=start, handle_sigint=False))
        if errors:
            keeper.note(errors[-1])  # now that the line is no longer drawn
        return text

    return read


def _read_line(start: str) -> str:
    """Read a line; an empty one stands for the text that it would have started with."""
    escape_invalid_bytes()
    return whole_characters(input(f"{PROMPT}{in_brackets(start)}")) or start


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
            start = "" if typed[-1:].isspace() else typed.split()[-1] if typed else ""
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
        enable_suspend=True,
    )


def _keys(multiline: bool) -> KeyBindings:
    """Return the keys: Enter sends, Alt-Enter or Ctrl-J makes a new line; with `multiline` Enter
    makes a new line and Alt-Enter sends. Ctrl-G or Ctrl-X Ctrl-E opens the person's editor, whose
    text comes back to be sent.
    """
    from prompt_toolkit.filters import is_searching
    from prompt_toolkit.input.ansi_escape_sequences import ANSI_SEQUENCES
    from prompt_toolkit.key_binding import KeyBindings
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
    keys.add("c-g", filter=~is_searching)(_edit_elsewhere)  # in a search it ends that
    keys.add("c-x", "c-e")(_edit_elsewhere)
    return keys


def _edit_elsewhere(event: KeyPressEvent) -> None:
    """Let the person's editor change what was typed."""
    from prompt_toolkit.application import run_in_terminal
    from prompt_toolkit.document import Document

    buffer = event.current_buffer

    def run() -> None:
        try:
            text = edit(buffer.text)
        except NfoxError as error:
            report(error)
        else:
            buffer.document = Document(text, len(text))

    run_in_terminal(run)


def _history(remember: bool, errors: list[str] | None = None) -> History:
    """Return the history of inputs.

    Args:
        remember: save it in a file.
        errors: gets what went wrong, or "", each time that an input was to be saved.
    """
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    class PrivateHistory(FileHistory):
        """Leaves out of the file what begins with a space; a file that fails costs the file only:
        what was typed can be called up again, and the next line tries anew.
        """

        @override
        def load_history_strings(self) -> Iterable[str]:
            with suppress(OSError):
                if history_file().is_file():  # what is none may have no end
                    yield from super().load_history_strings()

        @override
        def store_string(self, string: str) -> None:
            if string.startswith(" "):
                return
            try:
                state_folder()
                history_file().touch(mode=0o600)
                super().store_string(whole_characters(string))
                wrong = ""
            except (OSError, ValueError) as error:
                wrong = describe(error)
            if errors is not None:
                errors.append(wrong)

    return PrivateHistory(str(history_file())) if remember else InMemoryHistory()
