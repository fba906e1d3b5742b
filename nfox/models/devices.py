"""On what a model runs, and in which dtype."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from nfox.errors import UsageError


def best_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_device(name: str | None) -> torch.device:
    """Return the device of a name; the best one for None.

    Raises:
        UsageError: if there is no such device here.
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
    flags = Path("/proc/cpuinfo")
    text = flags.read_text(encoding="utf-8", errors="replace") if flags.is_file() else ""
    words = set(text.split())
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def choose_dtype(name: str, device: torch.device) -> torch.dtype | Literal["auto"]:
    """Return the dtype for a name of `DTYPES`; "auto" is the checkpoint's own."""
    if name != "auto":
        found: torch.dtype = getattr(torch, name)
        return found
    if device.type == "cpu":
        return torch.bfloat16 if cpu_computes_bfloat16() else torch.float32
    return "auto"
