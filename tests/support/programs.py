"""`nfox` in processes that begin at once: forked from one that has imported what takes seconds.

Such a process has its own arguments, environment, folder, files and signals, and runs and ends as
`python -m nfox.cli` does. Only its imports are not its own, so where these matter (what a library
prints or reads while it is imported), a test starts the real program.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import io
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("NFOX_")},
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
}
COMMAND = (sys.executable, "-m", "nfox.cli")
"""The real program."""
_IMPORTED = (
    "transformers.models.llama.modeling_llama",
    "transformers.trainer",
    "nfox.cli.app",
    "nfox.cli.chat.app",
    "nfox.loader",
    "nfox.serve.app",
    "nfox.train.run",
)
_LONGEST = 1 << 17  # of a request, in bytes


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
    ours, theirs = socket.socketpair()
    with theirs, open(os.devnull, "r+b", buffering=0) as nothing:  # noqa: PTH123
        files = [nothing if file is None else file for file in (stdin, stdout, stderr)]
        numbers = [file if isinstance(file, int) else file.fileno() for file in files]
        request = json.dumps(asked).encode()
        assert len(request) < _LONGEST
        socket.send_fds(_forking()[0], [request], [*numbers, theirs.fileno()])
    return Program(words, int(ours.recv(64)), ours)


def run(
    *arguments: object, input: str = "", cwd: Path = ROOT, env: Mapping[str, str] = ENVIRONMENT
) -> subprocess.CompletedProcess[str]:
    """Run `nfox ARGUMENTS` to its end; return what it said."""
    with (
        tempfile.TemporaryFile() as read,
        tempfile.TemporaryFile() as said,
        tempfile.TemporaryFile() as told,
    ):
        read.write(input.encode())
        read.seek(0)
        code = start(*arguments, stdin=read, stdout=said, stderr=told, cwd=cwd, env=env).wait(120)
        output = []
        for file in (said, told):
            file.seek(0)
            output.append(file.read().decode())
    return subprocess.CompletedProcess([*map(str, arguments)], code, *output)


def take_terminal() -> None:
    """Make the terminal that this process reads from that of its session."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@cache
def _forking() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start the process that forks, once; return where it is asked, and the process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        # It ends when our side of the socket is closed, at the latest with this process.
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
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


def _serve(requests: socket.socket) -> None:
    """Fork for every request; return in the new process, which is to run `nfox`."""
    signal.signal(signal.SIGCHLD, lambda *_: _reap())
    while True:
        data, files, _, _ = socket.recv_fds(requests, _LONGEST, 4)
        if not data:
            sys.exit()
        if os.fork() == 0:
            requests.close()
            *files, ended = files
            if _watched(socket.socket(fileno=ended)):
                _become(files, **json.loads(data))
                return
        for file in files:
            os.close(file)


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _watched(ended: socket.socket) -> bool:
    """Fork once more: return in the new process; tell in the old one who it is and how it ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        ended.close()
        return True
    os.closerange(3, ended.fileno())
    os.closerange(ended.fileno() + 1, 256)
    ended.send(str(pid).encode())
    ended.send(str(os.waitpid(pid, 0)[1]).encode())
    os._exit(0)


def _become(
    files: Sequence[int],
    words: list[str],
    cwd: str,
    env: dict[str, str],
    terminal: bool,
    prepare: str,
) -> None:
    """Make this process the one that was asked for."""
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    if terminal:
        take_terminal()
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        lines = number == 2 or os.isatty(number)
        stream = os.fdopen(number, "w" if number else "r", 1 if lines else -1, closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = [str(ROOT / "cli" / "__main__.py"), *words]
    if prepare:
        sys.path.append(str(Path(__file__).parent))
        module, _, function = prepare.partition(":")
        getattr(import_module(module), function)()


def _leave(codes: list[int]) -> None:
    """End as the interpreter would, but for taking all modules down, which takes the longest."""
    if codes:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(codes[0])


if __name__ == "__main__":
    sys.path[0] = ""  # as with -m, not the folder of this file
    codes: list[int] = []
    atexit.register(_leave, codes)  # the first to be registered is the last to be called
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns while it is imported
    for module in _IMPORTED:
        import_module(module)
    gc.freeze()  # what is collected is copied first, in each new process
    _serve(socket.socket(fileno=int(sys.argv[1])))
    from nfox.cli import main

    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, int):
            codes.append(end.code)
        raise
