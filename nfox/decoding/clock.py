"""The clock of what is measured, which stands while the process is stopped: by Ctrl-Z, say.

What is known of a machine, and what a person is told of it, would else be wrong for all that
follows.
"""

from __future__ import annotations

import signal
import time

_stopped = 0.0  # seconds


def now() -> float:
    """Return the seconds since some moment, without those for which `stop_process` stopped."""
    return time.perf_counter() - _stopped


def stop_process() -> None:
    """Stop the process, as Ctrl-Z does, until it is told to go on. From the main thread."""
    global _stopped
    handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    begin = time.perf_counter()
    signal.raise_signal(signal.SIGTSTP)  # to this thread: it stops here, and not a little later
    _stopped += time.perf_counter() - begin
    signal.signal(signal.SIGTSTP, handler)
