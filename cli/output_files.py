"""Files of results: checked before the work begins, written after the results have been shown."""

from __future__ import annotations

import os
from pathlib import Path

from nfox.characters import whole_characters
from nfox.errors import NfoxError, UsageError
from nfox.files.reading import refusing

_SHOWN = "what was measured stands above"


def check_out(file: Path | None, what: str = "result") -> None:
    """Check that a file can be written, before there is anything to write.

    Args:
        file: the path to write to; None if nothing is to be written.
        what: what the file will hold, for errors.

    Raises:
        UsageError: if its folder is missing, if it is itself a folder, or if it may not be written.
    """
    if file is None:
        return
    if not file.parent.is_dir():
        raise UsageError(f"there is no folder {file.parent} for the {what}", "make it first")
    with refusing(file, f"a name that a file for the {what} can have"):
        exists, is_folder = file.exists(), file.is_dir()
    if is_folder:
        raise UsageError(f"{file} is a folder, expected a file for the {what}", "name a file in it")
    if not os.access(file if exists else file.parent, os.W_OK):
        raise UsageError(f"{file}: no permission to write the {what}", "choose another place")


def check_new(file: Path, what: str) -> None:
    """Check that a file can be written, and that it takes the place of no other.

    Args:
        file: the path to write to; it may be a pipe or a device.
        what: what the file will hold, for errors.

    Raises:
        UsageError: as for `check_out`, and if the file exists.
    """
    check_out(file, what)
    if os.path.lexists(file) and (file.is_file() or not file.exists()):
        raise UsageError(f"{file} exists", "choose another name, or remove it first")


def check_folder(folder: Path | None, what: str) -> None:
    """Check that files can be written to a folder, before there are any.

    Args:
        folder: it exists or can be made; None if nothing is to be written.
        what: what the files will hold, for errors.

    Raises:
        UsageError: if the path is a file, or files cannot be written there.
    """
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, expected a folder for the {what}", "name another")
    check_out(folder / "any" if folder.is_dir() else folder, what)


def make_folder(folder: Path, not_lost: str = _SHOWN) -> None:
    """Make a folder for results, unless there is one.

    Args:
        folder: a path that passed `check_folder`.
        not_lost: what is not lost if that fails, for the error.

    Raises:
        NfoxError: if it cannot be made.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise NfoxError(
            f"{folder} was not made: {reason}; {not_lost}", "choose another place"
        ) from error


def write_out(file: Path, content: str | bytes, not_lost: str = _SHOWN) -> None:
    """Write a result to a file.

    Args:
        file: a path that passed `check_out`.
        content: a text, or the bytes of a picture.
        not_lost: what is not lost if that fails, for the error.

    Raises:
        NfoxError: if it cannot be written, as on a full disk.
    """
    from nfox.files.atomic import write_bytes  # which takes torch

    try:
        if isinstance(content, str):
            content = whole_characters(content).encode()
        write_bytes(file, content)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise NfoxError(
            f"{file} was not written: {reason}; {not_lost}",
            "free some space, or choose another place",
        ) from error
