"""A file of JSON lines that several processes add to, and go on with after a kill.

A line is there whole or not at all, and its "id" says what need not be made again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from nfox.characters import whole_characters
from nfox.files.reading import parse_json, refusing


@dataclass(frozen=True)
class WorkShare:
    """The share of the work that is this process's: every `size`-th item, from item `rank` on.

    Args:
        rank: the number of this process, from 0.
        size: the number of processes.
    """

    rank: int = 0
    size: int = 1

    def of(self, count: int) -> range:
        """Return the indices of this process's items, of `count` items in all."""
        return range(self.rank, count, self.size)


def locked(out: Path) -> FileLock:
    """Return a lock that keeps other processes from a file and from its provenance.

    Raises:
        UsageError: if lines cannot be added to such a file.
    """
    with refusing(out, "a file that lines can be added to"):
        if out.exists() and not out.is_file():  # a device may have no end
            raise ValueError("a folder" if out.is_dir() else "not a regular file")
        if out.parent.exists() and not out.parent.is_dir():
            raise ValueError(f"{out.parent} is no folder")
    return FileLock(f"{out}.lock")


def append_lines(out: Path, lines: str, wanted: Callable[[], bool] = lambda: True) -> None:
    """Add lines to a file, all of them or none; several processes may do so at once.

    A part of a line at the end of the file, left by a process that was killed, is cut off.

    Args:
        out: the file.
        lines: the lines, each with its newline.
        wanted: returns whether the lines are still to be added; it is called while no other
            process can add any.
    """
    with locked(out):
        if not wanted():
            return
        size = _cut_partial_line(out) if out.exists() else 0
        try:
            with out.open("a", encoding="utf-8") as file:
                file.write(whole_characters(lines))
        except OSError:  # a full disk keeps a part of it, and another process would go on there
            if out.exists():
                os.truncate(out, size)
            raise


def _cut_partial_line(out: Path) -> int:
    """Cut off the text after the last newline of a file; return the number of bytes left."""
    with out.open("rb+") as file:
        size = end = file.seek(0, os.SEEK_END)
        step, newline = 1, -1  # nearly always the last byte says it all
        while end and newline < 0:
            start = max(0, end - step)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            end, step = start + newline + 1 if newline >= 0 else start, 1 << 16
        if end < size:
            file.truncate(end)
        return end


def finished_ids(path: Path) -> set[str]:
    """Return the ids of the lines that an output file has; cut off a line that is not finished.

    Raises:
        UsageError: if the file is not an output of nfox.
    """
    if not path.exists():
        return set()
    data = path.read_bytes()
    *lines, rest = data.split(b"\n")
    ids = {line_id(path, number, line) for number, line in enumerate(lines, 1) if line.strip()}
    if rest and not rest.startswith(b"{"):
        line_id(path, len(lines) + 1, rest)  # not what we began to write: it must not be lost
    if rest:
        os.truncate(path, len(data) - len(rest))  # needs no room on a disk that is full
    return ids


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of the lines of an output file.

    Raises:
        UsageError: if the file is not an output of nfox.
    """
    with refusing(path):
        lines = path.read_bytes().split(b"\n")
    return [parse_line(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def line_id(path: Path, number: int, line: bytes | str) -> str:
    """Return the id of a line of an output file.

    Args:
        path: the file, for the error.
        number: the number of the line, from 1, for the error.
        line: the line.

    Raises:
        UsageError: if the line is not one that nfox wrote.
    """
    return str(parse_line(path, number, line)["id"])


def parse_line(path: Path, number: int, line: bytes | str) -> dict[str, Any]:
    """Return the object of a line of an output file, which has an id; see `line_id`.

    Raises:
        UsageError: if the line is not one that nfox wrote.
    """
    # The border's own words are a reason here: what is wrong is the choice of the file.
    where = f"{path} exists and is not an output of this command (line {number})"
    with refusing(where, hint="choose another --out"):
        value = parse_json(line, where, non_finite=True)
        if not isinstance(value, dict) or not isinstance(value.get("id"), str | int):
            raise TypeError('no object with an "id"')
        return value
