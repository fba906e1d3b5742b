"""What is trained on what, from loading to the folder it leaves, and the record that stays there.

There is one subclass for each kind of training; how it is done is in transformers'
`TrainingArguments`.
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

from nfox.models.options import LoadedModel, ModelOptions
from nfox.text.resolve import resolve
from nfox.train.data.conversations import read
from nfox.train.data.rows import Rows
from nfox.train.learner import Learner
from nfox.train.metrics import Found
from nfox.train.trainer import LearnerTrainer
from nfox.version import __version__

SAMPLE = 64
"""Rows of the training data that are measured on where no other data were given."""

Tell = Callable[[str], None]
"""Takes a line for the person."""


@dataclass(frozen=True)
class Done:
    """What came of a training.

    Args:
        folder: that was written; the checkpoint if it was stopped.
        stopped: before the end.
        model: to use what was trained with.
        adapter: of that model, if one was trained.
        measured: at the end; None if it was stopped.
        advice: lines on how to use it best.
    """

    folder: Path
    stopped: bool
    model: str
    adapter: Path | None = None
    measured: Found | None = None
    advice: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """What is trained on what.

    Args:
        method: what for.
        model: folder or hub id of the base or target.
        data: see `nfox.train.data.conversations.read`.
        eval_data: the same, to measure on.
        loading: how the model is loaded.
        max_length: tokens of a row at most.
        lazy: tokenise rows when they are needed.
        template: of conversations; None is the model's own.
        command: that started it, for the record.
    """

    method: str
    model: str
    data: str
    eval_data: str | None = None
    loading: ModelOptions = field(default_factory=ModelOptions)
    max_length: int = 2048
    lazy: bool = False
    template: str | None = None
    command: str = ""

    def check(self) -> None:  # noqa: B027 - some have nothing to check
        """Refuse what cannot be, before anything is loaded for it.

        Raises:
            UsageError: if there is something.
        """

    @abstractmethod
    def load(self) -> LoadedModel:
        """Load the model and refuse those that cannot be learned from.

        Raises:
            ModelError: if it is one of these, or cannot be loaded.
        """

    def rows(self, source: str, loaded: LoadedModel, tell: Tell, *, lazy: bool) -> Dataset[Any]:
        """Read data and tokenise them; here conversations.

        Args:
            source: of the data.
            loaded: the model.
            tell: takes a line about what was read.
            lazy: see `Job`.
        """
        template = resolve(loaded.tokenizer, self.template, model_name=self.model)
        length = min(self.max_length, loaded.target.max_context)
        found = read(source, self.loading.cache_dir)
        rows = Rows(found.kept, template, loaded.tokenizer, length, lazy=lazy)
        left = f", {rows.left_out} without a reply in {length} tokens" if rows.left_out else ""
        tell(f"{source}: {found.describe()}{left}")
        return rows

    @abstractmethod
    def learner(self, loaded: LoadedModel) -> Learner:
        """Make what is trained; random numbers are seeded before."""

    @abstractmethod
    def describe(self, learner: Any) -> Iterator[str]:
        """Yield lines about what will be trained; the first one is continued by the steps."""

    @abstractmethod
    def finish(self, trainer: LearnerTrainer, loaded: LoadedModel, seconds: float) -> Done:
        """Measure what was trained and write it.

        Args:
            trainer: that did it.
            loaded: the model.
            seconds: it took.
        """

    def measured(self, trainer: LearnerTrainer) -> Any:
        """Measure at the end: on the data for it, else on the first rows that were learned from."""
        rows: Any = trainer.train_dataset
        sample: Subset[Any] = Subset(rows, range(min(len(rows), SAMPLE)))
        return trainer.measure(trainer.eval_dataset or sample)

    def facts(self, trainer: LearnerTrainer, found: Found, seconds: float) -> dict[str, Any]:
        """Return the record of a training.

        Args:
            trainer: that did it.
            found: in the end.
            seconds: it took.
        """
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        rows: Sized = trainer.train_dataset
        return {
            "data": self.data,
            "measured_on": self.eval_data or f"the first {SAMPLE} rows of the training data",
            "loss": found.loss,
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


def full_name(model: str) -> str:
    """Return a model's name as it is understood everywhere: a folder's whole path, or a hub id."""
    folder = Path(model).expanduser()
    return str(folder.resolve()) if folder.is_dir() else model


def size(learner: Learner) -> tuple[int, float]:
    """Return how many parameters are trained, and their size on disk in MB."""
    count = sum(weight.numel() for weight in learner.parameters())
    return count, count * 2 / 1e6  # written in 16 bit
