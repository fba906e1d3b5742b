"""A training job: what is trained on which data, from loading to the folder that is written.

There is one subclass of `Job` for each kind of training. The optimizer, the schedule and the
checkpoints are in transformers' `TrainingArguments`.
"""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import Dataset, Subset

from nfox.controls import json_text
from nfox.files.atomic import write_text
from nfox.heads.checkpoint import TRAINING_FILE
from nfox.models.options import LoadedModel, ModelOptions
from nfox.text.resolve import resolve
from nfox.train.data.conversations import read_conversations
from nfox.train.data.rows import Rows
from nfox.train.data.synthesis_settings import Synthesis
from nfox.train.learner import Learner
from nfox.train.metrics import Metrics
from nfox.train.trainer import LearnerTrainer
from nfox.version import __version__

SAMPLE = 64
"""The number of training rows that are measured on where no evaluation data were given."""

Log = Callable[[str], None]
"""A function that takes a line of text for the user."""


@dataclass(frozen=True)
class TrainingResult:
    """What a training wrote and measured.

    Args:
        folder: the folder that was written; the last checkpoint if the training was stopped.
        stopped: whether the training was stopped before its end.
        model: the folder or hub id of the model to use what was trained with.
        adapter: the folder of that model's adapter, if one was trained.
        metrics: the metrics at the end; None if the training was stopped.
        advice: lines on how to use what was trained best.
    """

    folder: Path
    stopped: bool
    model: str
    adapter: Path | None = None
    metrics: Metrics | None = None
    advice: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """What is trained, from which model and on which data.

    Args:
        method: the name of the method that is trained for, as `nfox train` takes it.
        model: the folder or hub id of the base or target.
        data: the file or hub dataset to learn from, see `nfox.files.records.read_records`; "" for
            one that is yet to be made by the model itself.
        synthesis: how the model's own conversations are made, where `data` is "".
        eval_data: the file or hub dataset to measure on.
        loading: how the model is loaded.
        max_length: the maximum number of tokens of a row.
        lazy: tokenise rows when they are needed, not all of them at the beginning.
        template: the name or file of the conversation template; None takes the model's own.
        command: the command line that started the training, for the record.
    """

    method: str
    model: str
    data: str
    synthesis: Synthesis = field(default_factory=Synthesis)
    eval_data: str | None = None
    loading: ModelOptions = field(default_factory=ModelOptions)
    max_length: int = 2048
    lazy: bool = False
    template: str | None = None
    command: str = ""

    def check(self) -> None:  # noqa: B027 - some have nothing to check
        """Refuse settings that cannot work, before a model is loaded.

        Raises:
            UsageError: if a setting cannot work.
        """

    @abstractmethod
    def load(self) -> LoadedModel:
        """Load the model, and refuse one that cannot be learned from.

        Raises:
            ModelError: if the model cannot be learned from, or cannot be loaded.
        """

    def rows(self, data_path: str, loaded: LoadedModel, log: Log, *, lazy: bool) -> Dataset[Any]:
        """Read the conversations of a dataset and return them as rows of tokens.

        Args:
            data_path: the file or hub dataset.
            loaded: the model, whose tokenizer is used.
            log: takes a line about what was read.
            lazy: tokenise a row when it is needed.
        """
        template = resolve(loaded.tokenizer, self.template, model_name=self.model)
        length = min(self.max_length, loaded.target.max_context)
        dataset = read_conversations(data_path, self.loading.cache_dir)
        rows = Rows(dataset.conversations, template, loaded.tokenizer, length, lazy=lazy)
        left = f", {rows.left_out} without a reply in {length} tokens" if rows.left_out else ""
        log(f"{data_path}: {dataset.describe()}{left}")
        return rows

    @abstractmethod
    def learner(self, loaded: LoadedModel) -> Learner:
        """Return the module to train; it is called after the random seed was set."""

    @abstractmethod
    def describe(self, learner: Any) -> Iterator[str]:
        """Yield lines about what will be trained; the number of steps is appended to the first."""

    @abstractmethod
    def finish(
        self, trainer: LearnerTrainer, loaded: LoadedModel, seconds: float
    ) -> TrainingResult:
        """Measure what was trained and write it to the output folder.

        Args:
            trainer: the trainer, at the end of the training.
            loaded: the model that `load` returned.
            seconds: the duration of the training.
        """

    def final_metrics(self, trainer: LearnerTrainer) -> Any:
        """Return the learner's metrics on the evaluation rows; without these on the first
        `SAMPLE` training rows.
        """
        rows: Any = trainer.train_dataset
        sample: Subset[Any] = Subset(rows, range(min(len(rows), SAMPLE)))
        return trainer.measure(trainer.eval_dataset or sample)

    def training_record(
        self, trainer: LearnerTrainer, metrics: Metrics, seconds: float
    ) -> dict[str, Any]:
        """Return the facts about a training that are written beside what was trained.

        Args:
            trainer: the trainer, at the end of the training.
            metrics: the final metrics.
            seconds: the duration of the training.
        """
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        rows: Sized = trainer.train_dataset
        return {
            "data": self.data,
            "measured_on": self.eval_data or f"the first {SAMPLE} rows of the training data",
            "loss": metrics.loss,
            "last_training_loss": losses[-1] if losses else None,
            "examples": len(rows),
            "tokens": int(trainer.state.num_input_tokens_seen),
            "steps": trainer.state.global_step,
            "seconds": round(seconds, 1),
            "learning_rate": trainer.args.learning_rate,
            "max_length": self.max_length,
            "quantisation": self.loading.quantisation,
            "versions": {
                "nfox": __version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "python": platform.python_version(),
            },
            "command": self.command,
        }

    def write_record(self, folder: Path, training: dict[str, Any]) -> None:
        """Write the method, the base and the facts about the training to training.json.

        Args:
            folder: the output folder.
            training: the facts, of which `training_record` returns those of all jobs.
        """
        record = {"method": self.method, "base": full_name(self.model), "training": training}
        text = json_text(record, indent=2)
        write_text(folder / TRAINING_FILE, text + "\n")


def full_name(model: str) -> str:
    """Return a model's name as it can be used from any folder: an absolute path, or a hub id."""
    folder = Path(model).expanduser()
    return str(folder.resolve()) if folder.is_dir() else model


def parameter_count(learner: Learner) -> tuple[int, float]:
    """Return the number of trained parameters, and their size on disk in MB."""
    count = sum(weight.numel() for weight in learner.parameters())
    return count, count * 2 / 1e6  # written in 16 bit
