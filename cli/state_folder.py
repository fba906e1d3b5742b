"""The folder of what outlives a chat: the log of conversations, what was typed, rescued talks."""

from __future__ import annotations

from pathlib import Path

import platformdirs


def state_path() -> Path:
    """Return the path of the folder, whether or not it is there."""
    return Path(platformdirs.user_state_dir("nfox", appauthor=False))


def state_folder() -> Path:
    """Return the folder, which only its owner may read; make it if it is missing."""
    folder = state_path()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder
