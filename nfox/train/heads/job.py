"""Heads are trained: on a frozen base, or with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from typing_extensions import override

from nfox import drafters
from nfox.drafters.common.heads import HeadsDrafter
from nfox.errors import ModelError, UsageError
from nfox.heads import checkpoint
from nfox.heads import compatibility as fingerprint
from nfox.heads.base import Heads, HeadsConfig
from nfox.models.options import LoadedModel
from nfox.models.transformers_target import TransformersTarget
from nfox.train.heads.base_model import ADAPTER, WHOLE
from nfox.train.heads.joint_learner import JointLearner
from nfox.train.heads.joint_options import Joint
from nfox.train.heads.learner import HeadsLearner
from nfox.train.job import Done, Job, full_name
from nfox.train.loading import computed_in, load
from nfox.train.metrics import Measured
from nfox.train.trainer import LearnerTrainer


@dataclass(frozen=True, kw_only=True)
class HeadsJob(Job):
    """Heads of a method.

    Args:
        config: of the heads, what is not the method's default.
        own_labels: learn the target's own choices, not the data's.
        heads: folder or hub id of heads to start from; their config holds where `config` says
            nothing else.
        joint: how the base is trained, if it is.
    """

    config: dict[str, Any] = field(default_factory=dict)
    own_labels: bool = False
    heads: str | None = None
    joint: Joint = field(default_factory=Joint)

    @override
    def check(self) -> None:
        """Sizes that no heads can have."""
        made = heads_class(self.method)
        sizes: dict[str, Any] = {"hidden_size": 1, "vocab_size": 1}  # those of the base come later
        what = made.inspect(self.heads, self.loading.hub) if self.heads else None
        if what or not self.heads:
            _config(made, self, what.config if what else sizes)

    @override
    def load(self) -> LoadedModel:
        return load(self.model, self.loading, self.joint.base, "heads are for")

    @override
    def learner(self, loaded: LoadedModel) -> HeadsLearner:
        heads, target = make_heads(self, loaded.target), loaded.target
        if self.joint.base == "frozen":
            return HeadsLearner(heads, target, own_labels=self.own_labels, joint=self.joint)
        dtype = computed_in(target, self.loading, self.joint.base)
        return JointLearner(
            heads, target, own_labels=self.own_labels, joint=self.joint, dtype=dtype
        )

    @override
    def describe(self, learner: HeadsLearner) -> Iterator[str]:
        count = sum(weight.numel() for weight in learner.heads.parameters())
        written = count * 2 / 1e6  # in 16 bit
        yield f"{self.method} heads: {count:,} parameters ({written:.1f} MB on disk)"
        if isinstance(learner, JointLearner):
            also = sum(weight.numel() for weight in learner.trained.weights)
            yield f"the base is trained with them, {self.joint.spelled()}: {also:,} parameters"
        if learner.heads.learns_choices and not self.own_labels:
            yield (
                "the paper learns the base's own choices, which is --labels target; here: the "
                "data's"
            )

    @override
    def finish(self, trainer: LearnerTrainer, loaded: LoadedModel, seconds: float) -> Done:
        measured, weights = self.measured(trainer), trainer.weights("heads")
        folder, learner = Path(trainer.args.output_dir), trainer.learner
        if trainer.is_world_process_zero():
            what = self._about(trainer, measured, seconds)
            if isinstance(learner, JointLearner):
                learner.trained.write(folder, loaded.tokenizer, learner.dtype)
            checkpoint.write(folder, what, weights)
        model = str(folder / WHOLE) if self.joint.base == "whole" else self.model
        adapter = folder / ADAPTER if self.joint.base == "lora" else None
        return Done(folder, False, model, adapter, measured)

    def _about(
        self, trainer: LearnerTrainer, measured: Measured, seconds: float
    ) -> checkpoint.HeadsInfo:
        """Say what the heads are and where they come from."""
        learner: Any = trainer.learner
        training = {
            **self.facts(trainer, measured, seconds),
            "labels": "target" if self.own_labels else "data",
            "heads": self.heads,
            "joint": self.joint.record(),
            fingerprint.KEY: fingerprint.fingerprint(learner.target),
        }
        whole = Path(trainer.args.output_dir, WHOLE)
        return checkpoint.HeadsInfo(
            method=self.method,
            base=str(whole.resolve()) if self.joint.base == "whole" else full_name(self.model),
            config=learner.heads.config.model_dump(),
            accuracy=[[round(rate, 4) for rate in row] for row in measured.accuracy],
            training=training,
        )


def heads_class(method: str) -> type[HeadsDrafter]:
    """Return the class of a method that has heads.

    Raises:
        UsageError: if it has none.
    """
    found = drafters.method(method)
    if not issubclass(found, HeadsDrafter):
        made = {name: drafters.method(name) for name in drafters.names()}
        known = [name for name, kind in made.items() if issubclass(kind, HeadsDrafter)]
        raise UsageError(f"{method} has no heads to train", f"methods with: {', '.join(known)}")
    return found


def _config(made: type[HeadsDrafter], job: HeadsJob, sizes: dict[str, Any]) -> HeadsConfig:
    """Return the config that was asked for, with other sizes where nothing was."""
    try:
        return made.heads_class.Config.model_validate(sizes | job.config)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"--{job.method}_{first['loc'][0]}: {first['msg']}") from error


def make_heads(job: HeadsJob, target: TransformersTarget) -> Heads:
    """Make heads to begin with, or take those to go on with.

    Raises:
        UsageError: if they were made with other sizes than those asked for.
    """
    made = heads_class(job.method)
    sizes: dict[str, Any] = {
        "hidden_size": target.hidden_size,
        "vocab_size": target.vocabulary_size,
    }
    given = None
    if job.heads:
        base = LoadedModel(job.model, target, adapter=job.loading.adapter)
        given, info = made.load_heads(base, job.heads, job.loading.hub)
        sizes = info.config
    heads = made.heads_class(_config(made, job, sizes))
    if given is None:
        heads.start(target)
        return heads
    try:
        checkpoint.load_weights(heads, given.state_dict(), str(job.heads))
    except ModelError as error:
        odd = [name for name, value in job.config.items() if value != sizes.get(name)]
        raise UsageError(
            f"the heads in {job.heads} were made with another {', '.join(odd)}",
            f"leave --{job.method}_{odd[0]} out, or train new heads without --heads",
        ) from error
    return heads
