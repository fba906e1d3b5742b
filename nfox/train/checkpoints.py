"""Checkpoints to resume a training from: which ones are complete, which one is meant, whether it
fits, and what a full disk leaves of them.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from nfox.errors import ModelError, NfoxError, UsageError
from nfox.files.atomic import DiskFullError, reporting_full_disk
from nfox.files.hub import read_json

_STATE = "trainer_state.json"  # what the Trainer writes last
WEIGHTS = "model.safetensors"
_SAME_EPOCH = 1e-3


def checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints in a folder, the newest last."""
    numbered = [
        (int(match[1]), path)
        for path in folder.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name)) and _damaged_file(path) is None
    ]
    return [path for _, path in sorted(numbered)]


def _damaged_file(checkpoint: Path) -> str | None:
    """Return the name of a checkpoint's file that is missing or incomplete, as after a full disk
    or a kill; None if the checkpoint is complete.
    """
    try:
        read_json(checkpoint / _STATE)
    except ModelError:
        return _STATE
    for file in sorted(checkpoint.glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except Exception:  # whatever a damaged file causes
            return file.name
    pickled = sorted(file for file in checkpoint.iterdir() if file.suffix in (".pt", ".pth"))
    return next((file.name for file in pickled if not zipfile.is_zipfile(file)), None)


def resume_point(requested: str | None, folder: Path) -> Path | None:
    """Return the folder of the checkpoint to resume from; None to start from step 0.

    Args:
        requested: the value of --resume_from_checkpoint: a checkpoint's folder, a step number,
            "true" for the newest checkpoint, "false" or None for none; state_N for the one at the
            end of the epoch N, counted from 0, as CTC-drafter calls it.
        folder: the folder that checkpoints are written to.

    Raises:
        UsageError: if there is no such checkpoint.
        ModelError: if the checkpoint is incomplete.
    """
    word = (requested or "false").lower()
    if word in ("false", "no", "none", "0"):
        return None
    available = checkpoints(folder)
    if word in ("true", "yes", "latest"):
        if not available:
            raise UsageError(
                f"{folder}: no checkpoint to resume from", "leave --resume_from_checkpoint out"
            )
        return available[-1]
    if epoch := re.fullmatch(r"state_(\d+)", word):
        return _end_of_epoch(int(epoch[1]), available, folder)
    path = folder / f"checkpoint-{word}" if word.isdigit() else Path(str(requested)).expanduser()
    if not path.is_dir():
        names = ", ".join(checkpoint.name for checkpoint in available) or "none"
        raise UsageError(f"{path}: no such checkpoint", f"whole ones in {folder}: {names}")
    damaged = _damaged_file(path)
    if damaged:
        raise ModelError(
            f"{path} is no whole checkpoint: {damaged} is damaged or missing", _alternative(path)
        )
    return path


def _end_of_epoch(number: int, available: Sequence[Path], folder: Path) -> Path | None:
    """Return the checkpoint at the end of an epoch, counted from 0. Where there is no checkpoint at
    all, 0 stands for none: published scripts say it for a beginning.

    Raises:
        UsageError: if there is none.
    """
    epochs = {path: float(read_json(path / _STATE).get("epoch") or 0) for path in available}
    found = [path for path, epoch in epochs.items() if abs(epoch - (number + 1)) < _SAME_EPOCH]
    if not found and (number or available):
        names = ", ".join(f"{path.name} after {epoch:g} epochs" for path, epoch in epochs.items())
        raise UsageError(
            f"{folder}: no checkpoint of the end of epoch {number}, counted from 0",
            f"there are: {names or 'none'}; --resume_from_checkpoint true takes the last one",
        )
    return found[-1] if found else None


def _alternative(checkpoint: Path) -> str:
    """Return a hint that names another checkpoint of the same training to resume from."""
    parent = checkpoint.parent
    others = [path.name for path in checkpoints(parent) if path.name != checkpoint.name]
    if not others:
        return "there is no other one: leave --resume_from_checkpoint out to begin anew"
    return f"the last whole one is {others[-1]}: --resume_from_checkpoint {parent / others[-1]}"


def check_fits(checkpoint: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse a checkpoint of another training, of which transformers would load the weights that
    fit without an error.

    Args:
        checkpoint: the checkpoint's folder; one without model.safetensors is not checked.
        state: the state dict of the learner.

    Raises:
        ModelError: if names or shapes of weights differ.
    """
    path = checkpoint / WEIGHTS
    if not path.is_file():
        return
    with readable(checkpoint), safe_open(path, "pt") as file:
        saved = {_bare_name(n): file.get_slice(n).get_shape() for n in list(file.keys())}
    expected = {_bare_name(name): list(weight.shape) for name, weight in state.items()}
    if saved != expected:
        differing = sorted(expected.keys() ^ saved.keys()) or [
            name for name in expected if expected[name] != saved[name]
        ]
        name = differing[0]
        raise ModelError(
            f"{checkpoint} is of another training: {name} is {_format_shape(saved.get(name))}, "
            f"expected {_format_shape(expected.get(name))}",
            "train with the method and the sizes it was made with, or leave "
            "--resume_from_checkpoint out",
        )


def _bare_name(name: str) -> str:
    """Return a weight's name without the prefixes of DistributedDataParallel and torch.compile."""
    return name.removeprefix("module.").removeprefix("_orig_mod.")


def _format_shape(shape: list[int] | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape)) or "a number"


@contextmanager
def readable(checkpoint: Path) -> Iterator[None]:
    """Raise the errors of libraries that cannot read a checkpoint as a `ModelError` of one line.

    Args:
        checkpoint: the folder of the checkpoint that is read in the block.

    Raises:
        ModelError: if the checkpoint is unreadable.
    """
    try:
        yield
    except (NfoxError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise ModelError(
            f"{checkpoint} cannot be gone on from: {line}", _alternative(checkpoint)
        ) from error


def is_finished(checkpoint: Path, max_steps: int, epochs: float) -> bool:
    """Return whether a checkpoint is the end of its training, after which the `Trainer` would
    still take one more step.

    Args:
        checkpoint: the folder of a complete checkpoint.
        max_steps: the number of steps to train; 0 or less leaves it to the epochs.
        epochs: the number of epochs to train.
    """
    state = read_json(checkpoint / _STATE)
    with readable(checkpoint):
        if max_steps > 0:
            return bool(state["global_step"] >= max_steps)
        enough_epochs = state["num_train_epochs"] >= epochs
        return bool(enough_epochs and state["global_step"] >= state["max_steps"])


@contextmanager
def training_disk_full(folder: Path) -> Iterator[None]:
    """Raise the errors of libraries on a full disk as one that says how the training goes on.

    Args:
        folder: the folder that checkpoints are written to.

    Raises:
        DiskFullError: if the disk is full.
    """
    try:
        with reporting_full_disk(folder, "", ""):
            yield
    except DiskFullError as error:
        available = checkpoints(folder)
        state = f"{available[-1].name} is whole" if available else "no checkpoint was written yet"
        hint = (
            "free some space (or lower --save_total_limit), then add --resume_from_checkpoint true"
            if available
            else "free some space, then train again; what --save_steps writes can be gone on from"
        )
        raise DiskFullError(f"{folder}: the disk is full; {state}", hint) from error
