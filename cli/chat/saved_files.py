"""Files that outlive a chat: the history of inputs, the last conversation, and rescued ones."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from nfox.errors import NfoxError

if TYPE_CHECKING:
    from nfox.conversation import Conversation


def state_folder() -> Path:
    """Return the folder of these files, which only its owner may read; make it if it is missing."""
    folder = Path(platformdirs.user_state_dir("nfox", appauthor=False))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def last_file() -> Path:
    """Return the path to which the last conversation is saved."""
    return state_folder() / "last.json"


def save_last(conversation: Conversation) -> str:
    """Save the conversation as the last one, and return what went wrong, or ""."""
    try:
        part = last_file().with_suffix(".part")
        part.touch(mode=0o600)
        conversation.save(part)
        part.replace(last_file())  # at every moment there is one whole file
    except (OSError, NfoxError) as error:
        return f"the conversation is not kept: {error}"
    return ""


def rescue_file() -> Path:
    """Return the path of a new file to save a conversation to when the chat ends by an error."""
    return state_folder() / f"conversation-{time.strftime('%Y%m%d-%H%M%S')}.json"
