"""The clock of steps, which stands while the process is stopped: by Ctrl-Z in mid-reply, say.

What was measured of a machine would else be wrong for all that follows.
"""

from __future__ import annotations

import time

_left_out = 0.0  # seconds


def now() -> float:
    """Return the seconds since some moment, without those that were left out."""
    return time.perf_counter() - _left_out


def leave_out(seconds: float) -> None:
    """Leave seconds that have just passed out of all times.

    Args:
        seconds: for which the process was stopped.
    """
    global _left_out
    _left_out += seconds
