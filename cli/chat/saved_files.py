"""Files that outlive a chat: what was typed, the last conversation, those saved in need."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from nfox.errors import NfoxError

if TYPE_CHECKING:
    from nfox.conversation import Conversation


def state_folder() -> Path:
    """Return the folder, which only its owner may read; make it if there is none."""
    folder = Path(platformdirs.user_state_dir("nfox", appauthor=False))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def last_file() -> Path:
    """Return the path of the last conversation."""
    return state_folder() / "last.json"


def save_last(conversation: Conversation) -> str:
    """Write the conversation down as the last one; return what went wrong, or ""."""
    try:
        part = last_file().with_suffix(".part")
        part.touch(mode=0o600)
        conversation.save(part)
        part.replace(last_file())  # at every moment there is one whole file
    except (OSError, NfoxError) as error:
        return f"the conversation is not kept: {error}"
    return ""


def rescue_file() -> Path:
    """Return the path of a new file for a conversation."""
    return state_folder() / f"conversation-{time.strftime('%Y%m%d-%H%M%S')}.json"
