"""Servers in processes of their own."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from programs import COMMAND, ENVIRONMENT, Program, start

TINY = ("--dtype", "float32", "--threads", "1", "--max-new-tokens", "24")
Process = subprocess.Popen[bytes] | Program
_PATIENCE = 120.0


class Server:
    """A process that listens.

    Args:
        process: of it.
        url: where.
        log: a file with what it said.
    """

    def __init__(self, process: Process, url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log


@contextmanager
def nfox(folder: Path, *arguments: str, real: bool = False, **options: Any) -> Iterator[Server]:
    """Start `nfox serve` or `nfox worker` on a free port; end it behind the block.

    Args:
        folder: where it runs.
        arguments: of it.
        real: whether it is started as a person starts it, with its own imports.
        options: more arguments of `programs.start`, where it is not.
    """
    log = folder / f"{arguments[0]}-{time.monotonic_ns()}.log"
    words = [*arguments, "--port", "0"]
    begin = (
        running([*COMMAND, *words], folder, log) if real else forked(words, folder, log, **options)
    )
    with begin as process:
        found = waited(process, log, lambda: re.search(r" at (http://[^/;]+)", log.read_text()))
        url = found[1]
        waited(process, log, lambda: _answers(f"{url}/openapi.json"))
        yield Server(process, url, log)


@contextmanager
def running(command: list[str], folder: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a folder until the block ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=ENVIRONMENT, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def forked(words: list[str], folder: Path, log: Path, **options: Any) -> Iterator[Program]:
    """Run `nfox WORDS` in a folder until the block ends."""
    with log.open("wb") as output:
        process = start(*words, cwd=folder, stdout=output, stderr=output, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def waited(process: Process, log: Path, look: Callable[[], Any]) -> Any:
    """Look until there is something, or the process has ended."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        if found := look():
            return found
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError(f"{process.args}: {log.read_text()}")


def _answers(url: str) -> bool:
    try:
        httpx.get(url, timeout=5)
    except httpx.HTTPError:
        return False
    return True


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
