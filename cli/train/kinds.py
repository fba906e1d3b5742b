"""The kinds of training: each has settings of its own, makes its job, and reports its result."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar

from nfox.files.jsonl import WorkShare
from nfox.models.options import LoadedModel
from nfox.text.template import Template
from nfox.train.job import Job, TrainingResult


def setting(help: str, default: Any = None) -> Any:
    """Return the dataclass field of a setting.

    Args:
        help: its line in the help text.
        default: its value where it is not typed.
    """
    return field(default=default, metadata={"help": help})


class TrainingKind(ABC):
    """One kind of training.

    Args:
        method: the name after `nfox train`.

    Attributes:
        defaults: the defaults of settings, where they differ from those of other kinds.
        unused: settings of published commands that change nothing here, with the reason.
    """

    defaults: ClassVar[Mapping[str, Any]] = {}
    unused: ClassVar[Mapping[str, str]] = {}

    def __init__(self, method: str) -> None:
        self.method = method

    @abstractmethod
    def arguments(self) -> list[type]:
        """Return the dataclasses of the settings of this kind."""

    @abstractmethod
    def job(self, arguments: list[Any], typed: Container[str], common: dict[str, Any]) -> Job:
        """Return the job that the settings describe.

        Args:
            arguments: an instance of each dataclass of `arguments`.
            typed: the names of the settings that were typed.
            common: the fields that all jobs have.

        Raises:
            UsageError: for settings that cannot work, or not together.
        """

    def idle(self, job: Any) -> dict[str, str]:
        """Return the settings that change nothing in a job, with the reasons."""
        return {}

    def forecast(self, job: Any) -> str:
        """Return one line on what to expect of a job that makes its own data, "" where nothing is
        known.
        """
        return ""

    def data_of(
        self,
        job: Any,
        conversations: Path,
        loaded: LoadedModel,
        template: Template,
        share: WorkShare,
    ) -> Path:
        """Return the file to learn from: the conversations, or what is made of them.

        Args:
            job: the job.
            conversations: the file of the model's conversations with itself.
            loaded: the model.
            template: its conversation template.
            share: this process's share of the work.
        """
        return conversations

    @abstractmethod
    def report(self, job: Any, result: TrainingResult) -> Iterator[str]:
        """Yield lines with the metrics of a training, and the command that uses its result."""


def measured_on(job: Any) -> str:
    """Return a remark where a training was measured on rows that it learned from, else ""."""
    return "" if job.eval_data else " (on rows that it learned from: no --eval_data_path)"


def chat_command(job: Job, result: TrainingResult, *options: str) -> str:
    """Return the indented command line that chats with what was trained.

    Args:
        job: the job.
        result: its result, whose model and adapter are named.
        options: further words of the command line.
    """
    quantised = [f"--load-in-{job.loading.quantisation}"] if job.loading.quantisation else []
    adapter = ["--adapter", str(result.adapter)] if result.adapter else []
    return "  " + shlex.join(["nfox", "--model", result.model, *quantised, *adapter, *options])
