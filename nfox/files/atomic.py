"""Files that are complete or not there: each is written under another name first.

A file that was cut is refused, and a full disk is one line that says what is not lost.
"""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nfox.errors import ModelError, NfoxError

UNREADABLE = (
    SafetensorError,
    pickle.UnpicklingError,
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    EOFError,
)
"""What torch and safetensors raise over a file that is not whole, or not theirs."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, or a PyTorch one without unpickling code.

    Raises:
        ModelError: if it is truncated or something else.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        # Mapped, so that to look at names and shapes costs nothing; the oldest format cannot be.
        mapped = zipfile.is_zipfile(path)
        return dict(torch.load(path, map_location="cpu", weights_only=True, mmap=mapped))
    except UNREADABLE as error:
        # What the libraries say is for programmers, and several lines long.
        why = f"{path.stat().st_size:,} bytes" if path.exists() else "no such file"
        why = str(error.strerror) if isinstance(error, PermissionError) else why
        raise ModelError(
            f"{path}: not a whole checkpoint of weights ({why})", "copy it again"
        ) from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file; it is complete before it has its name."""
    with _complete(path) as part:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part)


def write_text(path: Path, text: str) -> None:
    """Write a text file; it is complete before it has its name."""
    with _complete(path) as part:
        part.write_text(text, encoding="utf-8")


def copy(source: Path, path: Path) -> None:
    """Copy a file; it is complete before it has its name."""
    with _complete(path) as part:
        shutil.copyfile(source, part)


@contextmanager
def _complete(path: Path) -> Iterator[Path]:
    """Give another name to write to; what was not written whole, on a full disk, goes."""
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class DiskFullError(NfoxError):
    """A file could not be written because the disk, or what a person may have of it, is full."""


@contextmanager
def reporting_full_disk(path: Path, kept: str, hint: str) -> Iterator[None]:
    """Turn what libraries raise on a full disk into one line.

    Args:
        path: the file or folder that is written to.
        kept: what is not lost.
        hint: what the person can do.

    Raises:
        DiskFullError: instead of what they raise; other errors go on as they are.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if getattr(error, "errno", None) not in _FULL and not any(
            phrase in str(error) for phrase in _FULL_PHRASES
        ):
            raise
        raise DiskFullError(f"{path}: the disk is full; {kept}", hint) from error


_FULL = {  # of the disk, of what a person may have of it, of what a file may be
    code
    for name in ("ENOSPC", "EDQUOT", "EFBIG")
    if (code := getattr(errno, name, None)) is not None
}
_FULL_PHRASES = (
    *map(os.strerror, sorted(_FULL)),
    "unexpected pos",  # torch.save, which does not say why it could write no more
    "PytorchStreamWriter failed writing",
)
