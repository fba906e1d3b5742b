"""Where a training goes on: checkpoints that are whole, and what a full disk means for them."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from nfox.errors import NfoxError, UsageError

_STATE = "trainer_state.json"  # what the Trainer writes last


def checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints in a folder, the newest last."""
    numbered = [
        (int(found[1]), path)
        for path in folder.glob("checkpoint-*")
        if (found := re.fullmatch(r"checkpoint-(\d+)", path.name)) and _whole(path)
    ]
    return [path for _, path in sorted(numbered)]


def _whole(path: Path) -> bool:
    try:
        json.loads((path / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # written while the disk got full, or while it was killed
        return False
    return True


def resume_point(asked: str | None, folder: Path) -> Path | None:
    """Return the checkpoint to go on from; None to begin.

    Args:
        asked: a folder, a step's number, "true" for the newest one, "false" or None.
        folder: where checkpoints are written.

    Raises:
        UsageError: if there is no such checkpoint.
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
    if not _whole(path):
        there = ", ".join(item.name for item in found) or "none"
        raise UsageError(f"{path}: no whole checkpoint", f"whole ones in {folder}: {there}")
    return path


def finished(point: Path, max_steps: int, epochs: float) -> bool:
    """Whether a checkpoint is the end of its training; the Trainer would take one step more.

    Args:
        point: a whole checkpoint.
        max_steps: to train; 0 or less leaves it to the epochs.
        epochs: to train.
    """
    state = json.loads((point / _STATE).read_text(encoding="utf-8"))
    if max_steps > 0:
        return bool(state["global_step"] >= max_steps)
    same = state["num_train_epochs"] >= epochs
    return bool(same and state["global_step"] >= state["max_steps"])


@contextmanager
def full_disk_said(folder: Path) -> Iterator[None]:
    """Turn what libraries raise on a full disk into one line.

    Args:
        folder: that is written to.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        if not full:
            raise
        found = checkpoints(folder)
        kept = f"{found[-1].name} is whole" if found else "no checkpoint was written yet"
        raise NfoxError(
            f"{folder}: the disk is full; {kept}",
            "free some space (or lower --save_total_limit), then add --resume_from_checkpoint true",
        ) from error
