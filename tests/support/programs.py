"""`nfox` in processes that begin at once: forked from one that has imported what takes seconds.

Such a process has its own arguments, environment, folder, files and signals, and runs and ends as
`python -m nfox.cli` does. Only its imports are not its own, so where these matter (what a library
prints or reads while it is imported), a test starts the real program.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("NFOX_")},
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
}
COMMAND = (sys.executable, "-m", "nfox.cli")
"""The real program."""
LONGEST = 1 << 17
"""Of a request to the process that forks, in bytes."""


class Program:
    """A process of `nfox`, with as much of `subprocess.Popen` as the tests use.

    Args:
        args: the arguments of the program.
        pid: of the process.
        ended: a socket on which its status comes when it has ended.
    """

    def __init__(self, args: Sequence[str], pid: int, ended: socket.socket) -> None:
        self.args, self.pid, self.returncode = args, pid, None
        self._ended = ended

    def wait(self, timeout: float | None = None) -> int:
        """Return its code when it has ended: that of its exit, or minus the signal's number."""
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = os.waitstatus_to_exitcode(int(self._ended.recv(64)))
            self._ended.close()
        return self.returncode

    def poll(self) -> int | None:
        """Return the code if it has ended."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(
    *arguments: object,
    stdin: int | io.IOBase | None = None,
    stdout: int | io.IOBase | None = None,
    stderr: int | io.IOBase | None = None,
    cwd: Path = ROOT,
    env: Mapping[str, str] = ENVIRONMENT,
    terminal: bool = False,
    prepare: str = "",
) -> Program:
    """Start `nfox ARGUMENTS` in a session of its own.

    Args:
        arguments: of the program.
        stdin: a file or its number; nothing is there to be read without one.
        stdout: a file or its number; what is written is lost without one.
        stderr: the same.
        cwd: the folder it runs in.
        env: its environment.
        terminal: whether stdin is a terminal that is to be the session's own.
        prepare: "module:function" among these helpers, called in the process before it begins.
    """
    words = [str(argument) for argument in arguments]
    asked = {"words": words, "cwd": str(cwd), "env": dict(env)}
    asked |= {"terminal": terminal, "prepare": prepare}
    ours, theirs = _pair()
    with theirs, open(os.devnull, "r+b", buffering=0) as nothing:  # noqa: PTH123
        files = [nothing if file is None else file for file in (stdin, stdout, stderr)]
        numbers = [file if isinstance(file, int) else file.fileno() for file in files]
        request = json.dumps(asked).encode()
        assert len(request) < LONGEST
        socket.send_fds(_forking()[0], [request], [*numbers, theirs.fileno()])
    return Program(words, int(ours.recv(64)), ours)


def run(
    *arguments: object, input: str = "", cwd: Path = ROOT, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run `nfox ARGUMENTS` to its end; return what it said.

    Args:
        arguments: of the program.
        input: what is there to be read from stdin.
        cwd: the folder it runs in.
        options: more arguments of `start`.
    """
    with (
        tempfile.TemporaryFile() as read,
        tempfile.TemporaryFile() as said,
        tempfile.TemporaryFile() as told,
    ):
        read.write(input.encode())
        read.seek(0)
        files = {"stdin": read, "stdout": said, "stderr": told}
        code = start(*arguments, **files, cwd=cwd, **options).wait(120)
        output = []
        for file in (said, told):
            file.seek(0)
            output.append(file.read().decode())
    return subprocess.CompletedProcess([*map(str, arguments)], code, *output)


def take_terminal() -> None:
    """Make the terminal that this process reads from that of its session."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _pair() -> tuple[socket.socket, socket.socket]:
    """Return two ends of a connection that keeps messages apart."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@cache
def _forking() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start the process that forks, once; return where it is asked, and the process."""
    ours, theirs = _pair()
    with theirs:
        # It ends when our side of the socket is closed, at the latest with this process.
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forking.py")), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
        )
    return ours, process


def stop() -> None:
    """End the process that forks, if there is one."""
    if _forking.cache_info().currsize:
        ours, process = _forking()
        ours.close()
        process.wait()
        _forking.cache_clear()
