"""Programs that are started with a stream that is closed; see `prepare` of `programs.start`."""

from __future__ import annotations

import os
import sys


def without_stdin() -> None:
    _close("stdin", 0)


def without_stdout() -> None:
    _close("stdout", 1)


def without_any() -> None:
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        _close(name, number)


def _close(name: str, number: int) -> None:
    """Do as Python does where it finds a stream closed."""
    os.close(number)
    setattr(sys, name, None)
    setattr(sys, f"__{name}__", None)
