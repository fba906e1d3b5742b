"""Whether heads meet the base they were trained on: a few of its logits, kept beside them.

Many models are of the same size, and heads fit all of them; they only guess worse.
"""

from __future__ import annotations

from pathlib import Path

import torch

from nfox.decoding.target import Target
from nfox.files.model_names import is_local_file, local_folder
from nfox.heads.checkpoint import HeadsInfo

FINGERPRINT_KEY = "base_fingerprint"
"""Under `training` in `drafter.json`; files of older versions have none."""

_LOGIT_COUNT = 16
_TOLERANCE = 0.01  # of the logits' norm; other dtypes change it by less


@torch.no_grad()
def fingerprint(target: Target) -> list[float]:
    """Return a few of the logits that a target gives for a made-up hidden state."""
    state = torch.arange(target.hidden_size, dtype=torch.float64).cos()
    logits = target.unembed(state.to(target.output_device, target.dtype))
    step = max(target.vocabulary_size // _LOGIT_COUNT, 1)
    return [round(value, 5) for value in logits[::step][:_LOGIT_COUNT].tolist()]


def mismatch_warning(
    info: HeadsInfo, location: str, model: str, target: Target, adapter: str | None
) -> str | None:
    """Return one line about why heads may not be for a target, and what to do; None if nothing is
    known against them.

    Args:
        info: what the heads' folder says of them.
        location: the folder or hub id that they were read from.
        model: the name of the target.
        target: the model that they are to draft for.
        adapter: the adapter that the target was loaded with; None for none.
    """
    if _full_name(model) == _full_name(info.base):
        joint = info.training.get("joint") or {}
        if joint.get("base") != "lora" or adapter:
            return None
        beside = Path(location) / "adapter"
        flag = f"--adapter {beside}" if beside.is_dir() else "--adapter and its folder"
        return f"{location} was trained together with an adapter, which is not there: add {flag}"
    base_fingerprint = info.training.get(FINGERPRINT_KEY)
    if not base_fingerprint or _is_close(base_fingerprint, fingerprint(target)):
        return None
    return (
        f"{location} was trained on {info.base}, and {model} is another model: the text stays "
        "right, but fewer guesses will be"
    )


def _full_name(name: str) -> str:
    """Return the resolved path of a folder or file, and a hub id as it is."""
    is_here = local_folder(name) is not None or is_local_file(name)
    return str(Path(name).expanduser().resolve()) if is_here else name


def _is_close(expected: list[float], actual: list[float]) -> bool:
    """Return whether two fingerprints are those of one model, maybe in different dtypes."""
    if len(expected) != len(actual):
        return False
    first, second = torch.tensor(expected), torch.tensor(actual)
    return bool((first - second).norm() <= _TOLERANCE * first.norm())
