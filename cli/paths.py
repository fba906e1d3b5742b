"""Paths as they are typed, in a chat or a shell: what they mean, and how they go on."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from nfox.errors import UsageError

NO_FILES = ("/",)
"""The ending of no file: where folders are meant."""


def typed_path(text: str, example: str) -> Path:
    """Return the path that was typed.

    Args:
        text: what was typed; "~" is the home.
        example: a command with a path, for the error.

    Raises:
        UsageError: if nothing was typed, or it begins in a home that there is not.
    """
    if not text:
        raise UsageError("which file?", f"for example {example}")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UsageError(f"{text}: there is no such home", "write the whole path") from None


def complete_path(typed: str, suffixes: tuple[str, ...] = ()) -> Iterable[str]:
    """Return the paths to which what was typed can be completed; folders end with a slash.

    Names that begin with a dot are left out unless a dot was typed.

    Args:
        typed: the beginning of a path.
        suffixes: of the files that are meant; () for all, `NO_FILES` for none.
    """
    folder, begun = os.path.split(typed)
    before, found = typed.removesuffix(begun), []
    with os.scandir(Path(folder or ".").expanduser()) as entries:
        for entry in entries:
            is_meant = entry.name.startswith(begun) and (begun or not entry.name.startswith("."))
            if is_meant and (entry.is_dir() or entry.name.endswith(suffixes or "")):
                found.append(before + entry.name + ("/" if entry.is_dir() else ""))
    return found
