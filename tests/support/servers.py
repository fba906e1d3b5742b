"""Servers in processes of their own, as a person starts them."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

TINY = ("--dtype", "float32", "--threads", "1", "--max-new-tokens", "24")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
_PATIENCE = 120.0


class Server:
    """A process that listens.

    Args:
        process: of it.
        url: where.
        log: a file with what it said.
    """

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log


@contextmanager
def nfox(folder: Path, *arguments: str) -> Iterator[Server]:
    """Start `nfox serve` or `nfox worker` on a free port; end it behind the block."""
    log = folder / f"{arguments[0]}-{time.monotonic_ns()}.log"
    command = [sys.executable, "-m", "nfox.cli", *arguments, "--port", "0"]
    with running(command, folder, log) as process:
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


def waited(process: subprocess.Popen[bytes], log: Path, look: Callable[[], Any]) -> Any:
    """Look until there is something, or the process has ended."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        if found := look():
            return found
        if process.poll() is not None:
            break
        time.sleep(0.1)
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
