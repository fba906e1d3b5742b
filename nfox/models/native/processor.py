"""The processor of this machine, as Linux lists it: its name, and what it can do."""

from __future__ import annotations

import platform
from pathlib import Path

BUSY = 1.25
"""The load for each core from which on a machine is busy."""


def processor_name() -> str:
    """Return the name of the processor's model; elsewhere than on Linux what Python knows of it."""
    named = (line.partition(":")[2].strip() for line in _lines() if line.startswith("model name"))
    return next(named, platform.processor() or "CPU")


def processor_flags() -> frozenset[str]:
    """Return the names of what the processor can do; none elsewhere than on Linux."""
    return frozenset(flags_line().partition(":")[2].split())


def flags_line() -> str:
    """Return the line that lists what the processor can do; "" elsewhere than on Linux."""
    return next((line for line in _lines() if line.startswith(("flags", "Features"))), "")


def _lines() -> list[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.splitlines()
