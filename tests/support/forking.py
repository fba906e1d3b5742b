"""The process that `programs` asks: it has imported and built everything, and forks for each
request.

Run as a program, with the number of a socket. It ends when the other side is closed.
"""

from __future__ import annotations

import atexit
import gc
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import torch._dynamo.utils
import typer.main
from built_once import keep_commands
from programs import LONGEST, ROOT, take_terminal

_IMPORTED = (
    "transformers.models.llama.modeling_llama",
    "transformers.trainer",
    "nfox.cli.app",
    "nfox.cli.chat.app",
    "nfox.loader",
    "nfox.serve.app",
    "nfox.train.run",
)


def _serve(requests: socket.socket) -> None:
    """Fork for every request; return in the new process, which is to run `nfox`."""
    signal.signal(signal.SIGCHLD, lambda *_: _reap())
    while True:
        data, files, _, _ = socket.recv_fds(requests, LONGEST, 4)
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
    sys.path[0] = ""  # as with -m; the helpers beside this file are imported by now
    codes: list[int] = []
    atexit.register(_leave, codes)  # the first to be registered is the last to be called
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns while it is imported
    for module in _IMPORTED:
        import_module(module)
    atexit.unregister(torch._dynamo.utils.dump_compile_times)  # which takes longer than most runs
    keep_commands()
    typer.main.get_command(import_module("nfox.cli.app").app)
    gc.freeze()  # what is collected is copied first, in each new process
    _serve(socket.socket(fileno=int(sys.argv[1])))
    from nfox.cli import main

    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, int):
            codes.append(end.code)
        raise
