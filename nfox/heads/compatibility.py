"""Whether heads meet the base they were trained on: a few of its logits, kept beside them.

Models of the same size are many, and heads fit all of them; they only guess worse.
"""

from __future__ import annotations

from pathlib import Path

import torch

from nfox.decoding.target import Target
from nfox.heads.checkpoint import HeadsInfo

KEY = "base_fingerprint"
"""Under `training` in `drafter.json`; files of older versions have none."""

_PLACES, _NEAR = 16, 0.01


@torch.no_grad()
def fingerprint(target: Target) -> list[float]:
    """Return a few logits of a made-up hidden state; other dtypes change them by a percent only."""
    state = torch.arange(target.hidden_size, dtype=torch.float64).cos()
    logits = target.unembed(state.to(target.output_device, target.dtype))
    step = max(target.vocabulary_size // _PLACES, 1)
    return [round(value, 5) for value in logits[::step][:_PLACES].tolist()]


def mismatch_warning(
    info: HeadsInfo, location: str, model: str, target: Target, adapter: str | None
) -> str | None:
    """Say in one line why heads may not be for a target, and what to do; None if nothing says so.

    Args:
        info: what the heads are.
        location: the folder or hub id that they were read from.
        model: the name of the target.
        target: the model that they are to draft for.
        adapter: the adapter that the target was loaded with; None for none.
    """
    if _full(model) == _full(info.base):
        joint = info.training.get("joint", {})
        if joint.get("base") != "lora" or adapter:
            return None
        beside = Path(location) / "adapter"
        flag = f"--adapter {beside}" if beside.is_dir() else "--adapter and its folder"
        return f"{location} was trained together with an adapter, which is not there: add {flag}"
    kept = info.training.get(KEY)
    if not kept or _alike(kept, fingerprint(target)):
        return None
    return (
        f"{location} was trained on {info.base}, and {model} is another model: the text stays "
        "right, but fewer guesses will be"
    )


def _full(name: str) -> str:
    path = Path(name).expanduser()
    return str(path.resolve()) if path.is_dir() else name


def _alike(one: list[float], other: list[float]) -> bool:
    if len(one) != len(other):
        return False
    first, second = torch.tensor(one), torch.tensor(other)
    return bool((first - second).norm() <= _NEAR * first.norm())
