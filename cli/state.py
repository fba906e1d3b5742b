"""Files that outlive a chat: what was typed, and conversations saved in need."""

from __future__ import annotations

import time
from pathlib import Path

import platformdirs


def state_folder() -> Path:
    """Return the folder, which only its owner may read; make it if there is none."""
    folder = Path(platformdirs.user_state_dir("nfox", appauthor=False))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def rescue_file() -> Path:
    """Return the path of a new file for a conversation."""
    return state_folder() / f"conversation-{time.strftime('%Y%m%d-%H%M%S')}.json"
