"""Where a training goes on: checkpoints that are whole, and what a full disk means for them."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nfox.errors import ModelError, UsageError
from nfox.files.atomic import UNREADABLE, DiskFullError, reporting_full_disk

_STATE = "trainer_state.json"  # what the Trainer writes last
WEIGHTS = "model.safetensors"


def checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints in a folder, the newest last."""
    numbered = [
        (int(found[1]), path)
        for path in folder.glob("checkpoint-*")
        if (found := re.fullmatch(r"checkpoint-(\d+)", path.name)) and _whole(path)
    ]
    return [path for _, path in sorted(numbered)]


def _whole(path: Path) -> bool:
    return _damaged(path) is None


def _damaged(path: Path) -> str | None:
    """Return a file that is not whole, as after a full disk or a kill; None if there is none."""
    try:
        json.loads((path / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return _STATE
    for file in sorted(path.glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except (OSError, SafetensorError):
            return file.name
    pickled = sorted(file for file in path.iterdir() if file.suffix in (".pt", ".pth"))
    return next((file.name for file in pickled if not zipfile.is_zipfile(file)), None)


def resume_point(asked: str | None, folder: Path) -> Path | None:
    """Return the checkpoint to go on from; None to begin.

    Args:
        asked: a folder, a step's number, "true" for the newest one, "false" or None.
        folder: where checkpoints are written.

    Raises:
        UsageError: if there is no such checkpoint.
        ModelError: if it is not whole.
    """
    word = (asked or "false").lower()
    if word in ("false", "no", "none", "0"):
        return None
    found = checkpoints(folder)
    if word in ("true", "yes", "latest"):
        if not found:
            raise UsageError(
                f"{folder}: no checkpoint to resume from", "leave --resume_from_checkpoint out"
            )
        return found[-1]
    path = folder / f"checkpoint-{word}" if word.isdigit() else Path(str(asked)).expanduser()
    if not path.is_dir():
        there = ", ".join(item.name for item in found) or "none"
        raise UsageError(f"{path}: no such checkpoint", f"whole ones in {folder}: {there}")
    damaged = _damaged(path)
    if damaged:
        raise ModelError(
            f"{path} is no whole checkpoint: {damaged} is damaged or missing", _instead(path)
        )
    return path


def _instead(point: Path) -> str:
    """Say what can be gone on from in a checkpoint's place."""
    others = [path.name for path in checkpoints(point.parent) if path.name != point.name]
    if not others:
        return "there is no other one: leave --resume_from_checkpoint out to begin anew"
    return (
        f"the last whole one is {others[-1]}: --resume_from_checkpoint {point.parent / others[-1]}"
    )


def check_fits(point: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse a checkpoint of something else: transformers would take what fits, and go on.

    Args:
        point: a checkpoint; one without weights of its own is left to whoever reads it.
        state: of what is trained.

    Raises:
        ModelError: if names or shapes differ.
    """
    path = point / WEIGHTS
    if not path.is_file():
        return
    with readable(point), safe_open(path, "pt") as file:
        kept = {_plain(name): file.get_slice(name).get_shape() for name in list(file.keys())}
    own = {_plain(name): list(weight.shape) for name, weight in state.items()}
    if kept != own:
        odd = sorted(own.keys() ^ kept.keys()) or [n for n in own if own[n] != kept[n]]
        there, here = (_spell(shapes.get(odd[0])) for shapes in (kept, own))
        raise ModelError(
            f"{point} is of another training: {odd[0]} is {there}, expected {here}",
            "train with the method and the sizes it was made with, or leave "
            "--resume_from_checkpoint out",
        )


def _plain(name: str) -> str:
    return name.removeprefix("module.").removeprefix("_orig_mod.")


def _spell(shape: list[int] | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape)) or "a number"


@contextmanager
def readable(point: Path) -> Iterator[None]:
    """Turn what libraries raise on a checkpoint that they cannot read into one line.

    Args:
        point: that is read.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except UNREADABLE as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise ModelError(f"{point} cannot be gone on from: {line}", _instead(point)) from error


def finished(point: Path, max_steps: int, epochs: float) -> bool:
    """Whether a checkpoint is the end of its training; the Trainer would take one step more.

    Args:
        point: a whole checkpoint.
        max_steps: to train; 0 or less leaves it to the epochs.
        epochs: to train.
    """
    state = json.loads((point / _STATE).read_text(encoding="utf-8"))
    with readable(point):
        if max_steps > 0:
            return bool(state["global_step"] >= max_steps)
        same = state["num_train_epochs"] >= epochs
        return bool(same and state["global_step"] >= state["max_steps"])


@contextmanager
def training_disk_full(folder: Path) -> Iterator[None]:
    """Turn what libraries raise on a full disk while training into one line that says how the
    training goes on.

    Args:
        folder: where checkpoints are written.
    """
    try:
        with reporting_full_disk(folder, "", ""):
            yield
    except DiskFullError as error:
        whole = checkpoints(folder)
        state = f"{whole[-1].name} is whole" if whole else "no checkpoint was written yet"
        hint = (
            "free some space (or lower --save_total_limit), then add --resume_from_checkpoint true"
            if whole
            else "free some space, then train again; what --save_steps writes can be gone on from"
        )
        raise DiskFullError(f"{folder}: the disk is full; {state}", hint) from error
