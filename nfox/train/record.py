"""What is trained on what, and the record of it that stays with the heads."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

import nfox
from nfox import checkpoint, fingerprint
from nfox.loading import ModelOptions
from nfox.train.base import WHOLE
from nfox.train.joint import Joint
from nfox.train.measure import Measured
from nfox.train.trainer import HeadsTrainer

SAMPLE = 64
"""Rows of the training data that accuracy is measured on where no other data were given."""


@dataclass(frozen=True)
class Job:
    """What is trained on what; how is in transformers' `TrainingArguments`.

    Args:
        method: whose heads.
        model: folder or hub id of the base.
        data: see `nfox.train.data.read`.
        eval_data: the same, to measure on.
        config: of the heads, what is not the method's default.
        loading: how the base is loaded.
        max_length: tokens of a row at most.
        lazy: tokenise rows when they are needed.
        own_labels: learn the target's own choices, not the data's.
        heads: folder or hub id of heads to start from; their config holds where `config` says
            nothing else.
        joint: how the base is trained, if it is.
        template: of conversations; None is the model's own.
        command: that started it, for the record.
    """

    method: str
    model: str
    data: str
    eval_data: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    loading: ModelOptions = field(default_factory=ModelOptions)
    max_length: int = 2048
    lazy: bool = False
    own_labels: bool = False
    heads: str | None = None
    joint: Joint = field(default_factory=Joint)
    template: str | None = None
    command: str = ""


def about(job: Job, trainer: HeadsTrainer, measured: Measured, seconds: float) -> checkpoint.About:
    """Say what the heads are and where they come from.

    Args:
        job: what was asked for.
        trainer: that did it.
        measured: of its heads, in the end.
        seconds: it took.
    """
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    training = {
        "data": job.data,
        "labels": "target" if job.own_labels else "data",
        "measured_on": job.eval_data or f"the first {SAMPLE} rows of the training data",
        "loss": measured.loss,
        "last_training_loss": losses[-1] if losses else None,
        "examples": len(trainer.train_dataset),
        "tokens": int(trainer.state.num_input_tokens_seen),
        "steps": trainer.state.global_step,
        "seconds": round(seconds, 1),
        "learning_rate": trainer.args.learning_rate,
        "max_length": job.max_length,
        "heads": job.heads,
        "joint": job.joint.record(),
        "quantisation": job.loading.quantisation,
        fingerprint.KEY: fingerprint.fingerprint(trainer.learner.target),
        "versions": {
            "nfox": nfox.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        "command": job.command,
    }
    whole = job.joint.base == "whole"
    folder = Path(trainer.args.output_dir, WHOLE) if whole else Path(job.model).expanduser()
    return checkpoint.About(
        method=job.method,
        base=str(folder.resolve()) if whole or folder.is_dir() else job.model,
        config=trainer.learner.heads.config.model_dump(),
        accuracy=[[round(rate, 4) for rate in row] for row in measured.accuracy],
        training=training,
    )
