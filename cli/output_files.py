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


def check_folder(folder: Path | None, what: str) -> None:
    """Find what keeps files from being written to a folder, before there are any.

    Args:
        folder: that exists or can be made, if they are to be written at all.
        what: they are, for errors.

    Raises:
        UsageError: if it is a file, or files cannot be written there.
    """
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, expected a folder for the {what}", "name another")
    check_out(folder / "any" if folder.is_dir() else folder, what)


def make_folder(folder: Path, kept: str = "what was measured stands above") -> None:
    """Make a folder for results, if it is not there.

    Args:
        folder: that `check_folder` had nothing against.
        kept: what is not lost if it fails.

    Raises:
        NfoxError: if it cannot be made.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise NfoxError(f"{folder} was not made: {why}; {kept}", "choose another place") from error


def write_out(file: Path, text: str | bytes, kept: str = "what was measured stands above") -> None:
    """Write a result.

    Args:
        file: that `check_out` had nothing against.
        text: of it, or the bytes of a picture.
        kept: what is not lost if it fails.

    Raises:
        NfoxError: if it cannot be written, as on a full disk.
    """
    try:
        file.write_bytes(text.encode() if isinstance(text, str) else text)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise NfoxError(
            f"{file} was not written: {why}; {kept}", "free some space, or choose another place"
        ) from error
