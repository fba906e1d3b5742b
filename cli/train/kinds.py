"""What differs between the kinds of training: settings of their own, the job, the last words."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Mapping
from dataclasses import field
from typing import Any, ClassVar

from nfox.train.job import Done, Job


def about(help: str, default: Any = None) -> Any:
    """Declare a setting with its line of help."""
    return field(default=default, metadata={"help": help})


class Kind(ABC):
    """One kind of training.

    Args:
        method: as typed.

    Attributes:
        defaults: of settings, where they differ from the others'.
        unused: settings of published commands that change nothing here, and why.
    """

    defaults: ClassVar[Mapping[str, Any]] = {}
    unused: ClassVar[Mapping[str, str]] = {}

    def __init__(self, method: str) -> None:
        self.method = method

    @abstractmethod
    def arguments(self) -> list[type]:
        """Return dataclasses of the settings of its own."""

    @abstractmethod
    def job(self, given: list[Any], said: Container[str], common: dict[str, Any]) -> Job:
        """Return what to train.

        Args:
            given: one of each of `arguments`.
            said: names of the settings that were given.
            common: what all jobs have.

        Raises:
            UsageError: for what cannot be done, or not together.
        """

    @abstractmethod
    def report(self, job: Any, done: Done) -> Iterator[str]:
        """Yield lines on what came of it, and how to use it."""


def measured_on(job: Any) -> str:
    """Say it where a training was measured on what it learned from."""
    return "" if job.eval_data else " (on rows that it learned from: no --eval_data_path)"


def command(job: Job, done: Done, *more: str) -> str:
    """Return the command that talks to what was trained."""
    quantised = [f"--load-in-{job.loading.quantisation}"] if job.loading.quantisation else []
    adapter = ["--adapter", str(done.adapter)] if done.adapter else []
    return "  " + shlex.join(["nfox", "--model", done.model, *quantised, *adapter, *more])
