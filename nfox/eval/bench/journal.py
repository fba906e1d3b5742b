"""The trials of a benchmark that was interrupted: a file that keeps them as they come."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nfox.decoding.stats import Stats
from nfox.errors import UsageError
from nfox.eval.bench.trials import Trial
from nfox.files.atomic import reporting_full_disk


def trials_file(out: Path) -> Path:
    """Return the file that keeps the trials of a result until the result is written."""
    return out.with_name(f"{out.name}.trials")


class TrialJournal:
    """A file of trials, whose first line says what they depend on.

    Args:
        path: of the file.
        facts: all that a trial depends on, as JSON can have it.
    """

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.path = path
        self.facts: dict[str, Any] = json.loads(json.dumps(facts))

    def read(self) -> list[Trial]:
        """Return the trials of the file; of several with one key, the last.

        Raises:
            UsageError: if the file was made under other conditions, or cannot be read.
        """
        if not self.path.exists():
            return []
        try:
            first, *lines = self.path.read_text(encoding="utf-8").split("\n")
            facts: dict[str, Any] = json.loads(first)
            trials = [_from_json(json.loads(line)) for line in lines[:-1] if line]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UsageError(
                f"{self.path}: not the trials of a benchmark: {error}", "take it away"
            ) from error
        if facts != self.facts:
            names = sorted(facts.keys() | self.facts.keys())
            differing = [name for name in names if facts.get(name) != self.facts.get(name)]
            raise UsageError(
                f"{self.path} holds trials of a benchmark with other {', '.join(differing)}",
                "run that one again to finish it, or delete the file",
            )
        return list({trial.key: trial for trial in trials}.values())

    @contextmanager
    def writing(self) -> Iterator[Callable[[Trial], None]]:
        """Open the file to be added to, and yield a function that adds a trial.

        Raises:
            NfoxError: if the disk is full.
        """
        with reporting_full_disk(
            self.path, "the trials before are whole", "free some space, go on"
        ):
            if self.path.exists():
                end = self.path.read_bytes().rfind(b"\n") + 1
                os.truncate(self.path, end)  # a torn line is written anew
            with self.path.open("a", encoding="utf-8") as file:
                if not file.tell():
                    file.write(json.dumps(self.facts) + "\n")

                def add(trial: Trial) -> None:
                    file.write(json.dumps(_to_json(trial)) + "\n")
                    file.flush()

                yield add


def _to_json(trial: Trial) -> dict[str, Any]:
    fields = asdict(trial)
    fields["turn"] = fields.pop("round")  # its name in files of the first release
    return fields


def _from_json(fields: dict[str, Any]) -> Trial:
    fields["round"] = fields.pop("turn")
    fields["stats"] = [Stats(**reply) for reply in fields["stats"]]
    return Trial(**fields)


def complete_rounds(trials: Sequence[Trial], entrants: Sequence[str]) -> list[Trial]:
    """Return the trials of those tasks and rounds of which every entrant has finished a trial.

    Args:
        trials: of a benchmark that may have been interrupted.
        entrants: the names of all entrants.
    """
    finished = {trial.key for trial in trials}
    return [
        trial
        for trial in trials
        if all((entrant, trial.task, trial.round) in finished for entrant in entrants)
    ]
