"""The job that trains the heads of a method, on a frozen base or jointly with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch.utils.data import Dataset
from typing_extensions import override

from nfox import drafters
from nfox.drafters.common.heads import HeadsDrafter
from nfox.errors import ModelError, UsageError
from nfox.heads import checkpoint
from nfox.heads.base import Heads, HeadsConfig
from nfox.heads.compatibility import FINGERPRINT_KEY, fingerprint
from nfox.models.options import LoadedModel
from nfox.models.training_folders import ADAPTER_FOLDER, BASE_FOLDER
from nfox.models.transformers_target import TransformersTarget
from nfox.train.data.numbered_rows import NumberedRows
from nfox.train.heads.joint_learner import JointLearner
from nfox.train.heads.joint_training import JointTraining
from nfox.train.heads.learner import HeadsLearner
from nfox.train.heads.savings import Savings
from nfox.train.job import Job, Log, TrainingResult, full_name
from nfox.train.loading import computation_dtype, load
from nfox.train.metrics import HeadsAccuracy
from nfox.train.trainer import LearnerTrainer


@dataclass(frozen=True, kw_only=True)
class HeadsJob(Job):
    """The training of a method's heads.

    Args:
        config: the fields of the heads' config that differ from the method's defaults.
        target_labels: learn the tokens that the target itself chooses, not those of the data.
        heads: the folder or hub id of heads to start from; their config holds for the fields that
            are not in `config`.
        joint: whether and how the base is trained with the heads.
        savings: what is saved of the work, where the base is frozen.
    """

    config: dict[str, Any] = field(default_factory=dict)
    target_labels: bool = False
    heads: str | None = None
    joint: JointTraining = field(default_factory=JointTraining)
    savings: Savings = field(default_factory=Savings)

    @override
    def check(self) -> None:
        """Refuse sizes that no heads can have, before a model is loaded.

        Raises:
            UsageError: if a size is out of range.
        """
        method = heads_class(self.method)
        if not self.heads:
            # The base, whose sizes these are, is not loaded yet.
            _config(method, self, {"hidden_size": 1, "vocab_size": 1})
        elif info := method.inspect(self.heads, self.loading.hub):
            _config(method, self, info.config)

    @override
    def load(self) -> LoadedModel:
        return load(self.model, self.loading, self.joint.base, "heads are for")

    @override
    def rows(self, data_path: str, loaded: LoadedModel, log: Log, *, lazy: bool) -> Dataset[Any]:
        """Return rows as they are, or numbered where their states are kept."""
        plain = super().rows(data_path, loaded, log, lazy=lazy)
        if self.joint.base != "frozen" or not self.savings.keep_states:
            return plain
        rows: Any = plain
        if rows.tokens:
            size = rows.tokens * loaded.target.hidden_size * loaded.target.dtype.itemsize
            log(f"{data_path}: the base's hidden states take {size / 1e9:.1f} GB of memory")
        return NumberedRows(rows)

    @override
    def learner(self, loaded: LoadedModel) -> HeadsLearner:
        heads, target = make_heads(self, loaded.target), loaded.target
        if self.joint.base == "frozen":
            return HeadsLearner(
                heads,
                target,
                target_labels=self.target_labels,
                joint=self.joint,
                savings=self.savings,
            )
        dtype = computation_dtype(target, self.loading, self.joint.base)
        return JointLearner(
            heads, target, target_labels=self.target_labels, joint=self.joint, dtype=dtype
        )

    @override
    def describe(self, learner: HeadsLearner) -> Iterator[str]:
        count = sum(weight.numel() for weight in learner.heads.parameters())
        megabytes = count * 2 / 1e6  # in 16 bit
        yield f"{self.method} heads: {count:,} parameters ({megabytes:.1f} MB on disk)"
        if isinstance(learner, JointLearner):
            base_count = sum(weight.numel() for weight in learner.trained_base.weights)
            yield (
                f"the base is trained with them, {self.joint.describe()}: {base_count:,} parameters"
            )
        if learner.heads.learns_target_labels and not self.target_labels:
            yield (
                "the paper learns the base's own choices, which is --labels target; here: the "
                "data's"
            )

    @override
    def finish(
        self, trainer: LearnerTrainer, loaded: LoadedModel, seconds: float
    ) -> TrainingResult:
        accuracy, weights = self.final_metrics(trainer), trainer.weights("heads")
        folder, learner = Path(trainer.args.output_dir), trainer.learner
        if trainer.is_world_process_zero():
            info = self._info(trainer, accuracy, seconds)
            if isinstance(learner, JointLearner):
                learner.trained_base.write(folder, loaded.tokenizer, learner.dtype)
            checkpoint.write(folder, info, weights)
        model = str(folder / BASE_FOLDER) if self.joint.base == "whole" else self.model
        adapter = folder / ADAPTER_FOLDER if self.joint.base == "lora" else None
        return TrainingResult(folder, False, model, adapter, accuracy)

    def _info(
        self, trainer: LearnerTrainer, accuracy: HeadsAccuracy, seconds: float
    ) -> checkpoint.HeadsInfo:
        """Return the description of the heads that is written beside their weights."""
        learner: Any = trainer.learner
        training = {
            **self.training_record(trainer, accuracy, seconds),
            "labels": "target" if self.target_labels else "data",
            "heads": self.heads,
            "joint": self.joint.record(),
            **asdict(self.savings),
            FINGERPRINT_KEY: fingerprint(learner.target),
        }
        base_folder = Path(trainer.args.output_dir, BASE_FOLDER)
        return checkpoint.HeadsInfo(
            method=self.method,
            base=(
                str(base_folder.resolve()) if self.joint.base == "whole" else full_name(self.model)
            ),
            config=learner.heads.config.model_dump(),
            accuracy=[[round(rate, 4) for rate in rates] for rates in accuracy.accuracy],
            frequent_tokens=self._frequent_tokens(learner),
            training=training,
        )

    def _frequent_tokens(self, learner: HeadsLearner) -> list[int]:
        """Return the tokens to guess from, rising, and those of heads that learn on; [] for all."""
        tokens = learner.frequent_tokens()
        info = self.heads and heads_class(self.method).inspect(self.heads, self.loading.hub)
        if not info:
            return tokens
        return sorted({*tokens, *info.frequent_tokens}) if tokens and info.frequent_tokens else []


def heads_class(method: str) -> type[HeadsDrafter]:
    """Return the drafter class of a method that has heads.

    Args:
        method: the name of the method.

    Raises:
        UsageError: if there is no such method, or it has no heads.
    """
    drafter = drafters.method_class(method)
    if not issubclass(drafter, HeadsDrafter):
        hint = f"methods with: {', '.join(drafters.methods_with_heads())}"
        raise UsageError(f"{method} has no heads to train", hint)
    return drafter


def _config(method: type[HeadsDrafter], job: HeadsJob, sizes: dict[str, Any]) -> HeadsConfig:
    """Return the config of the job's heads.

    Args:
        method: the drafter class.
        job: the job, whose `config` overrides `sizes`.
        sizes: the other fields of the config.

    Raises:
        UsageError: if a field is unknown or out of range.
    """
    try:
        return method.heads_class.Config.model_validate(sizes | job.config)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"--{job.method}_{first['loc'][0]}: {first['msg']}") from error


def make_heads(job: HeadsJob, target: TransformersTarget) -> Heads:
    """Return the heads that a training starts from: new ones, or those that the job names.

    Args:
        job: the job.
        target: the base, whose sizes new heads have.

    Raises:
        UsageError: if the heads that the job names have other sizes than its `config` says.
    """
    method = heads_class(job.method)
    sizes: dict[str, Any] = {
        "hidden_size": target.hidden_size,
        "vocab_size": target.vocabulary_size,
    }
    trained = None
    if job.heads:
        base = LoadedModel(job.model, target, adapter=job.loading.adapter)
        trained, info = method.load_heads(base, job.heads, job.loading.hub)
        sizes = info.config
    heads = method.heads_class(_config(method, job, sizes))
    if trained is None:
        heads.prepare_training(target)
        return heads
    try:
        checkpoint.load_weights(heads, trained.state_dict(), str(job.heads))
    except ModelError as error:
        differing = [name for name, value in job.config.items() if value != sizes.get(name)]
        raise UsageError(
            f"the heads in {job.heads} were made with another {', '.join(differing)}",
            f"leave --{job.method}_{differing[0]} out, or train new heads without --heads",
        ) from error
    return heads
