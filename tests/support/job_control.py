"""A shell that has one job: where that stops it says so, and `fg` or `bg` lets it go on."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

STOPPED = b"[stopped]"


def under_a_shell() -> None:
    """Return in a new process that is the job of this one, which becomes the shell.

    Like the simplest of shells, it leaves the terminal's settings as its job left them.
    """
    job = os.fork()
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # of who takes the terminal
    with suppress(OSError):
        os.setpgid(job, job)
    if job == 0:
        os.tcsetpgrp(0, os.getpid())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        return
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    while os.WIFSTOPPED(status := os.waitpid(job, os.WUNTRACED)[1]):
        os.tcsetpgrp(0, os.getpid())
        os.write(1, b"\r\n" + STOPPED + b"\r\n$ ")
        while (line := os.read(0, 100).strip()) not in (b"fg", b"bg"):
            pass
        if line == b"fg":
            os.tcsetpgrp(0, job)
        os.killpg(job, signal.SIGCONT)
    os._exit(os.waitstatus_to_exitcode(status))


def in_the_background() -> None:
    """Return in a new process that is a job in the background of this one, which becomes the shell;
    where that stops it says so, and ends both.
    """
    job = os.fork()
    with suppress(OSError):
        os.setpgid(job, job)
    if job == 0:
        return
    if os.WIFSTOPPED(status := os.waitpid(job, os.WUNTRACED)[1]):
        os.write(1, STOPPED)
        os.killpg(job, signal.SIGKILL)
        os._exit(1)
    os._exit(os.waitstatus_to_exitcode(status))
