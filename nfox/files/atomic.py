"""Files that are complete or not there: each is written under another name first.

A file that was cut is refused, and a full disk is one line that says what is not lost.
"""

from __future__ import annotations

import errno
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, which is complete or not there. It may quote the name of a file
    that is none: what is no character becomes U+FFFD.
    """
    with _complete_file(path) as part:
        part.write_text(whole_characters(text), encoding="utf-8")


def copy(source: Path, path: Path) -> None:
    """Copy a file; the copy is complete or not there."""
    with _complete_file(path) as part:
        shutil.copyfile(source, part)


@contextmanager
def _complete_file(path: Path) -> Iterator[Path]:
    """Yield another path to write to, which becomes `path` once all is written.

    Where writing fails, as on a full disk, the part that was written is removed.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


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
