"""Files that results go to: looked at before the work, written after it has been shown."""

from __future__ import annotations

import os
from pathlib import Path

from nfox.errors import NfoxError, UsageError


def check_out(file: Path | None, what: str = "result") -> None:
    """Find what keeps a file from being written, before there is anything to write.

    Args:
        file: where it is to be written, if anywhere.
        what: it is, for errors.

    Raises:
        UsageError: if there is no such folder, if it is one itself, or may not be written.
    """
    if file is None:
        return
    if not file.parent.is_dir():
        raise UsageError(f"there is no folder {file.parent} for the {what}", "make it first")
    if file.is_dir():
        raise UsageError(f"{file} is a folder, expected a file for the {what}", "name a file in it")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UsageError(f"{file}: no permission to write the {what}", "choose another place")


def write_out(file: Path, text: str, kept: str = "what was measured stands above") -> None:
    """Write a result.

    Args:
        file: that `check_out` had nothing against.
        text: of it.
        kept: what is not lost if it fails.

    Raises:
        NfoxError: if it cannot be written, as on a full disk.
    """
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise NfoxError(
            f"{file} was not written: {why}; {kept}", "free some space, or choose another place"
        ) from error
