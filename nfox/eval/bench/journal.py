"""The trials of a benchmark that was interrupted: a file that keeps them as they come."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from nfox.errors import UsageError
from nfox.eval.bench.trials import Trial
from nfox.files.atomic import reporting_full_disk
from nfox.files.reading import parse_json, refusing


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
        where = f"{self.path}: not the trials of a benchmark"
        with refusing(where, hint="take it away"):
            first, *lines = self.path.read_bytes().split(b"\n")
            self._check_facts(parse_json(first, f"{where}: line 1", non_finite=True))
            # The last is torn, or empty.
            trials = [
                self._trial(line, f"{where}: line {number}")
                for number, line in enumerate(lines[:-1], 2)
                if line
            ]
        return list({trial.key: trial for trial in trials}.values())

    def _check_facts(self, facts: Any) -> None:
        """Refuse what the first line of another benchmark's trials says.

        Raises:
            UsageError: if trials depended on something else.
        """
        if not isinstance(facts, dict):
            raise TypeError("line 1 is no JSON object")
        if facts != self.facts:
            names = sorted(facts.keys() | self.facts.keys())
            differing = [name for name in names if facts.get(name) != self.facts.get(name)]
            raise UsageError(
                f"{self.path} holds trials of a benchmark with other {', '.join(differing)[:200]}",
                "run that one again to finish it, or delete the file",
            )

    def _trial(self, line: bytes, where: str) -> Trial:
        """Return the trial of a line.

        Raises:
            UsageError: if it is none, or one of no entrant or task of this benchmark.
        """
        with refusing(where):
            fields = parse_json(line, where)
            fields["round"] = fields.pop("turn")
            # Strict as JSON is: an object is a reply's numbers, but a text is no number.
            trial = TypeAdapter(Trial).validate_json(json.dumps(fields), strict=True)
            tasks, entrants = self.facts.get("tasks"), self.facts.get("entrants")
            if tasks is not None and not 0 <= trial.task < len(tasks):
                raise ValueError(f"there is no task {trial.task}")
            if entrants is not None and trial.entrant not in entrants:
                raise ValueError(f"there is no entrant {trial.entrant!r:.40}")
            if len(trial.replies) != len(trial.stats):
                raise ValueError(f"{len(trial.replies)} replies, {len(trial.stats)} statistics")
            return trial

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


def complete_rounds(trials: Sequence[Trial], entrants: Sequence[str]) -> list[Trial]:
    """Return the entrants' trials of those tasks and rounds of which all have finished one.

    Args:
        trials: of a benchmark that may have been interrupted.
        entrants: the names of all entrants that did not die.
    """
    finished = {trial.key for trial in trials}
    return [
        trial
        for trial in trials
        if trial.entrant in entrants
        and all((entrant, trial.task, trial.round) in finished for entrant in entrants)
    ]
