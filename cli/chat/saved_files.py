"""Files that outlive a chat: the history of inputs, the last conversation, and rescued ones."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from nfox.errors import NfoxError
from nfox.files.reading import describe

if TYPE_CHECKING:
    from nfox.conversation import Conversation


def _state_path() -> Path:
    return Path(platformdirs.user_state_dir("nfox", appauthor=False))


def state_folder() -> Path:
    """Return the folder of these files, which only its owner may read; make it if it is missing."""
    folder = _state_path()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def last_file() -> Path:
    """Return the path to which the last conversation is saved, whether or not it can be."""
    return _state_path() / "last.json"


def history_file() -> Path:
    """Return the path to which inputs are saved, whether or not they can be."""
    return _state_path() / "input_history"


def save_last(conversation: Conversation) -> str:
    """Save the conversation as the last one, and return what went wrong, or ""."""
    try:
        state_folder()
        conversation.save(last_file(), private=True)
    except (OSError, ValueError) as error:
        return f"{_state_path()}: {describe(error)}"
    except NfoxError as error:
        return error.message
    return ""


def rescue(conversation: Conversation) -> tuple[Path | None, str]:
    """Save a conversation to a new file, where the last ones are or else among temporary files.

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
        self.failed = False

    def note(self, error: str) -> None:
        """Take what went wrong at an attempt, or "" if nothing did."""
        changed, self.failed = self.failed != bool(error), bool(error)
        if changed:
            self._say(f"{self._what} not kept: {error}" if error else f"{self._what} kept again")
