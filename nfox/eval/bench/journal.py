"""Trials of a benchmark that was interrupted: kept in a file as they come, and read again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nfox.decoding.stats import Stats
from nfox.errors import UsageError
from nfox.eval.bench.runner import Trial
from nfox.files.atomic import reporting_full_disk


class Kept:
    """A file of trials, the first line of which says what they depend on.

    Args:
        path: of the file.
        facts: all that a trial depends on.
    """

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.path = path
        self.facts: dict[str, Any] = json.loads(json.dumps(facts))

    def read(self) -> list[Trial]:
        """Return what is there; of what was held twice, the last.

        Raises:
            UsageError: if it was made under other conditions, or cannot be read.
        """
        if not self.path.exists():
            return []
        try:
            first, *lines = self.path.read_text(encoding="utf-8").split("\n")
            before: dict[str, Any] = json.loads(first)
            found = [_trial(json.loads(line)) for line in lines[:-1] if line]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UsageError(
                f"{self.path}: not the trials of a benchmark: {error}", "take it away"
            ) from error
        if before != self.facts:
            names = before.keys() | self.facts.keys()
            other = sorted(n for n in names if before.get(n) != self.facts.get(n))
            raise UsageError(
                f"{self.path} holds trials of a benchmark with other {', '.join(other)}",
                "run that one again to finish it, or delete the file",
            )
        return list({(one.entrant, one.task, one.turn): one for one in found}.values())

    @contextmanager
    def writing(self) -> Iterator[Any]:
        """Open it to be added to; yields what adds a trial.

        Raises:
            NfoxError: if the disk is full.
        """
        with reporting_full_disk(
            self.path, "the trials before are whole", "free some space, go on"
        ):
            if self.path.exists():
                whole = self.path.read_bytes().rfind(b"\n") + 1
                os.truncate(self.path, whole)  # a torn line is written anew
            with self.path.open("a", encoding="utf-8") as file:
                if not file.tell():
                    file.write(json.dumps(self.facts) + "\n")

                def add(trial: Trial) -> None:
                    file.write(json.dumps(asdict(trial)) + "\n")
                    file.flush()

                yield add


def _trial(line: dict[str, Any]) -> Trial:
    return Trial(**line | {"stats": [Stats(**one) for one in line["stats"]]})


def trials_file(out: Path) -> Path:
    """Return the file that keeps the trials of a result until the result is written."""
    return out.with_name(f"{out.name}.trials")


def whole(trials: Sequence[Trial], entrants: Sequence[str]) -> list[Trial]:
    """Return the trials of those tasks and rounds that every entrant has held.

    Args:
        trials: of a benchmark that may have been interrupted.
        entrants: names of all.
    """
    held = {(trial.entrant, trial.task, trial.turn) for trial in trials}
    return [t for t in trials if all((name, t.task, t.turn) in held for name in entrants)]
