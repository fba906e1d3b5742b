"""How long a person waits: for `nfox --help`, and with the embedded model for the first prompt of a
chat and for the first token of an answer.

    python benchmarks/startup.py

Medians of several runs, files in the page cache. The last line on stdout is JSON. Leave the machine
alone meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import subprocess
import sys
import tempfile
import time
from statistics import median

from typist import Typist

PROGRAM = [sys.executable, "-m", "nfox.cli"]


def help_seconds() -> float:
    """Return how long the help text takes."""
    start = time.perf_counter()
    subprocess.run([*PROGRAM, "--help"], check=True, capture_output=True)
    return time.perf_counter() - start


def first_prompt_seconds() -> float:
    """Return how long it takes from starting the chat, at a terminal, to its first prompt."""
    ours, theirs = pty.openpty()
    command = [*PROGRAM, "--model", "embedded"]
    try:
        with tempfile.TemporaryDirectory() as folder:
            env = {**os.environ, "XDG_STATE_HOME": folder, "TERM": "xterm-256color"}
            start = time.perf_counter()
            with subprocess.Popen(
                command, stdin=theirs, stdout=theirs, stderr=theirs, env=env
            ) as chat:
                Typist(ours, lambda: chat.poll() is not None).until_prompt()
                seconds = time.perf_counter() - start
                chat.kill()
        return seconds
    finally:
        os.close(ours)
        os.close(theirs)


def first_token_seconds() -> float:
    """Return how long it takes from starting the program to the first text of a reply."""
    start = time.perf_counter()
    command = [*PROGRAM, "--json", "-p", "Hello!"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event.get("type", event.get("event")) == "delta":
                process.kill()
                return time.perf_counter() - start
    raise RuntimeError("the program ended without a reply")


def main() -> None:
    """Measure all three and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    (
        help_seconds(),
        first_prompt_seconds(),
        first_token_seconds(),
    )  # the first run fills the page cache
    result = {
        "help_seconds": round(median(help_seconds() for _ in range(runs)), 3),
        "first_prompt_seconds": round(median(first_prompt_seconds() for _ in range(runs)), 3),
        "first_token_seconds": round(median(first_token_seconds() for _ in range(runs)), 3),
        "runs": runs,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
