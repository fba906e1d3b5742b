"""The device that a model runs on, and its dtype."""

from __future__ import annotations

from typing import Literal

import torch

from nfox.errors import UsageError
from nfox.models.native.processor import processor_flags

BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""The names of bfloat16 arithmetic among what a processor can do."""


def best_device() -> torch.device:
    """Return the first GPU, or the CPU of a machine without one."""
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_device(name: str | None) -> torch.device:
    """Return the device of a name such as "cuda:1"; for None the best one.

    Raises:
        UsageError: if this machine has no such device.
    """
    if name is None:
        return best_device()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"there is no device {name!r} here: {str(error).splitlines()[0][:120]}",
            "cpu, cuda, cuda:1, ...; or leave --device out",
        ) from error
    return device


def cpu_computes_bfloat16() -> bool:
    """Whether the CPU has bfloat16 arithmetic (AVX512-BF16 or AMX on x86, BF16 on Arm)."""
    return bool(processor_flags() & BFLOAT16_FLAGS)


def choose_dtype(name: str, device: torch.device) -> torch.dtype | Literal["auto"]:
    """Return the dtype of weights and activations.

    Args:
        name: one of `DTYPES`.
        device: the device that computes with them.

    Returns:
        The dtype, or "auto" for the checkpoint's own.
    """
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cpu":
        return torch.bfloat16 if cpu_computes_bfloat16() else torch.float32
    return "auto"
