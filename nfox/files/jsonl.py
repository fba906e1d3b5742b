"""A file of JSON lines that several processes add to, and go on with after a kill.

A line is there whole or not at all, and its "id" says what need not be made again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from nfox.errors import UsageError


@dataclass(frozen=True)
class WorkShare:
    """Which part of the work is this process's: every `size`-th piece, from `rank` on.

    Args:
        rank: of this process.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    def of(self, count: int) -> range:
        """Return the numbers of this process's pieces, of so many in all."""
        return range(self.rank, count, self.size)


def locked(out: Path) -> FileLock:
    """Return what keeps other processes from a file and its provenance meanwhile."""
    return FileLock(f"{out}.lock")


def append(out: Path, lines: str, wanted: Callable[[], bool] = lambda: True) -> None:
    """Add lines, all of them or nothing; several processes may do so at once.

    A part of a line at the end of the file, left by a process that was killed, goes.

    Args:
        out: the file.
        lines: each with its end.
        wanted: asked when nobody else can add any: whether they are still to be added.
    """
    with locked(out):
        if not wanted():
            return
        size = _whole(out) if out.exists() else 0
        try:
            with out.open("a", encoding="utf-8") as file:
                file.write(lines)
        except OSError:  # a full disk keeps a part of it, and another process would go on there
            if out.exists():
                os.truncate(out, size)
            raise


def _whole(out: Path) -> int:
    """Cut off what stands behind the last end of a line; return how many bytes are left."""
    with out.open("rb+") as file:
        size = end = file.seek(0, os.SEEK_END)
        step, found = 1, -1  # nearly always the last byte says it all
        while end and found < 0:
            start = max(0, end - step)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            end, step = start + found + 1 if found >= 0 else start, 1 << 16
        if end < size:
            file.truncate(end)
        return end


def finished_ids(path: Path) -> set[str]:
    """Return the ids that an output file already has; cut off a line that was not finished.

    Raises:
        UsageError: if it is not an output of ours.
    """
    if not path.exists():
        return set()
    data = path.read_bytes()
    *whole, rest = data.split(b"\n")
    ids = {_id(path, number, line) for number, line in enumerate(whole, 1) if line.strip()}
    if rest and not rest.startswith(b"{"):
        _id(path, len(whole) + 1, rest)  # not what we began to write: it must not be lost
    if rest:
        os.truncate(path, len(data) - len(rest))  # needs no room on a disk that is full
    return ids


def _id(path: Path, number: int, line: bytes) -> str:
    try:
        return str(json.loads(line)["id"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} exists and is not an output of this command (line {number}: {error})",
            "choose another --out",
        ) from error
