"""Files that are complete or not there: each is written under another name first.

A file that was cut is refused, and a full disk is one line that says what is not lost.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nfox.characters import whole_characters
from nfox.errors import ModelError, NfoxError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, or of a PyTorch file, by their names.

    No code that a PyTorch file holds is run.

    Raises:
        ModelError: if the file cannot be read, was cut, or has another format.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        # Mapped, so that to look at names and shapes costs nothing; the oldest format cannot be.
        mapped = zipfile.is_zipfile(path)
        loaded = dict(torch.load(path, map_location="cpu", weights_only=True, mmap=mapped))
        if not all(isinstance(name, str) and torch.is_tensor(loaded[name]) for name in loaded):
            raise TypeError("holds more than tensors by their names")
        return loaded
    except Exception as error:  # of every kind, as the bytes have it
        # What the libraries say is for programmers, and several lines long.
        reason = f"{path.stat().st_size:,} bytes" if path.exists() else "no such file"
        reason = str(error.strerror) if isinstance(error, PermissionError) else reason
        raise ModelError(
            f"{path}: not a whole checkpoint of weights ({reason})", "copy it again"
        ) from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by their names to a safetensors file, which is complete or not there."""
    with _complete_file(path) as part:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part
        )


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Write a text file in UTF-8, which is complete or not there. It may quote the name of a file
    that is none: what is no character becomes U+FFFD.

    Args:
        path: of the file.
        text: its content.
        private: whether only its owner may read it.
    """
    write_bytes(path, whole_characters(text).encode(), private=private)


def write_bytes(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write a file, which is complete or not there; see `write_text`."""
    with _complete_file(path, private=private) as part:
        part.write_bytes(content)


def copy(source: Path, path: Path) -> None:
    """Copy a file; the copy is complete or not there."""
    with _complete_file(path) as part:
        shutil.copyfile(source, part)


@contextmanager
def complete_files(folder: Path) -> Iterator[Path]:
    """Yield another folder for files that a library writes, which all go to `folder` once they are
    written; weights of a model that lie there and are not among them are removed.

    Where writing fails, as on a full disk, nothing in `folder` changes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(".part", ".", folder, ignore_cleanup_errors=True) as name:
        part = Path(name)
        yield part
        files = sorted(part.iterdir())
        for file in files:
            _reach_disk(file)
        for former in folder.glob("model*.safetensors*"):
            if not (part / former.name).exists():  # shards of another number would be read
                former.unlink()
        for file in files:
            if file.is_dir():
                shutil.copytree(file, folder / file.name, dirs_exist_ok=True)
            else:
                file.replace(folder / file.name)
        _reach_disk(folder)


@contextmanager
def _complete_file(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Yield another path to write to, which becomes `path` once all is written and on the disk.

    Where writing fails, as on a full disk, the part that was written is removed, and what was there
    before stays. A link stays one. A device or a pipe is written to as it is, and so is a file in a
    folder that takes no other.
    """
    path = Path(os.path.realpath(path))
    part = None if path.exists() and not path.is_file() else _new_part(path, private)
    if part is None:
        yield path
        return
    try:
        yield part
        _reach_disk(part)
        try:
            part.replace(path)
        except OSError as error:
            if error.errno != errno.EBUSY:  # of a file that is mounted on its own
                raise
            shutil.copyfile(part, path)
        _reach_disk(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _new_part(path: Path, private: bool) -> Path | None:
    """Make an empty file beside another, with its permissions; return None if there may be none
    but the file itself can be written to.

    Nobody else writes to it: its name was never used before.
    """
    mode = 0o600 if private else 0o666
    part = path.with_name(f".{secrets.token_hex(8)}.part")  # as short for the longest of names
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    except PermissionError:
        if os.access(path, os.W_OK):
            return None
        raise
    if path.exists() and not private:
        with suppress(OSError):
            shutil.copymode(path, part)
    return part


def _reach_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, would outlive a loss of power."""
    try:
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    except OSError as error:  # some file systems know no such thing, and Windows not of folders
        if error.errno in {*_DISK_FULL_CODES, errno.EIO}:  # some tell only now
            raise


class DiskFullError(NfoxError):
    """A file could not be written: the disk is full, or the person's quota of it is used up."""


@contextmanager
def reporting_full_disk(path: Path, preserved: str, hint: str) -> Iterator[None]:
    """Turn what libraries raise on a full disk into one line.

    Args:
        path: the file or folder that is written to within this context.
        preserved: a clause that says what is not lost.
        hint: a sentence that says what the person can do.

    Raises:
        DiskFullError: in place of the libraries' errors for a full disk; other errors pass.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if getattr(error, "errno", None) not in _DISK_FULL_CODES and not any(
            phrase in str(error) for phrase in _DISK_FULL_PHRASES
        ):
            raise
        raise DiskFullError(f"{path}: the disk is full; {preserved}", hint) from error


_DISK_FULL_CODES = {  # no space, a quota that is used up, a file that is too large
    code
    for name in ("ENOSPC", "EDQUOT", "EFBIG")
    if (code := getattr(errno, name, None)) is not None
}
_DISK_FULL_PHRASES = (
    *map(os.strerror, sorted(_DISK_FULL_CODES)),
    "unexpected pos",  # torch.save, which does not say why it could write no more
    "PytorchStreamWriter failed writing",
)
