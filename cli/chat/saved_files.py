"""Files that outlive a chat beside the log: the history of inputs, and rescued conversations."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nfox.controls import json_text
from nfox.errors import NfoxError
from nfox.files.reading import describe

from ..errors import print_error
from ..printing import json_for, tell
from ..state_folder import state_folder, state_path

if TYPE_CHECKING:
    from nfox.conversation import Conversation


def history_file() -> Path:
    """Return the path to which inputs are saved, whether or not they can be."""
    return state_path() / "input_history"


def rescue(conversation: Conversation) -> None:
    """Save a conversation to a new file, and print its path; where no file can be written, print
    the conversation.
    """
    path, wrong = _saved_anew(conversation)
    if path is not None:
        tell(f"the conversation is in {path}; /load reads it", whole=True)
        return
    print_error(f"the conversation could not be saved: {wrong}; here it is, as /load reads it")
    messages = [{"role": m.role, "content": m.content} for m in conversation.messages]
    tell(*json_for(sys.stderr, json_text(messages, indent=1)).splitlines(), whole=True)


def _saved_anew(conversation: Conversation) -> tuple[Path | None, str]:
    """Save a conversation to a new file, beside the log or else among temporary files.

    Returns:
        The path, None if it could be saved nowhere; and what went wrong last.
    """
    name = f"conversation-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.json"
    wrong = ""
    for folder in _rescue_folders():
        try:
            path = folder() / name
            conversation.save(path, private=True)
        except (OSError, ValueError, NfoxError) as error:
            wrong = describe(error)
        else:
            return path, wrong
    return None, wrong


def _rescue_folders() -> Iterator[Callable[[], Path]]:
    yield state_folder
    yield lambda: Path(tempfile.gettempdir())


def error_of(write: Callable[[], None]) -> str:
    """Return what went wrong when something was written, or "" if nothing did."""
    try:
        write()
    except NfoxError as error:
        return error.message
    return ""


class Keeper:
    """Tells once that something is not kept any longer, and once that it is again.

    Args:
        what: is kept, with its verb.
        say: takes a line for the person.

    Attributes:
        failed: whether the last attempt has failed; the next may do better.
    """

    def __init__(self, what: str, say: Callable[[str], None]) -> None:
        self._what = what
        self._say = say
        self._told = False
        self.failed = False

    def keep(self, write: Callable[[], None]) -> None:
        """Write something; where a signal comes in between, that has failed too."""
        self.failed = True
        self.note(error_of(write))

    def note(self, error: str) -> None:
        """Take what went wrong at an attempt, or "" if nothing did."""
        self.failed = bool(error)
        if self._told != self.failed:
            self._told = self.failed
            self._say(f"{self._what} not kept: {error}" if error else f"{self._what} kept again")
