"""A model is trained for Jacobi decoding."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from typing_extensions import override

from nfox.errors import ModelError, UsageError
from nfox.files.atomic import write_text
from nfox.heads.checkpoint import TRAINING_FILE
from nfox.models.options import LoadedModel
from nfox.models.prompt import stop_ids_of
from nfox.text.resolve import resolve
from nfox.text.template import Template
from nfox.train.cllm.learner import AR_WEIGHT, ConsistencyLearner
from nfox.train.cllm.rows import States
from nfox.train.cllm.trajectories import read_trajectories
from nfox.train.heads.base_model import ADAPTER, WHOLE
from nfox.train.heads.joint_options import Joint
from nfox.train.job import Done, Job, Tell, full_name, size
from nfox.train.loading import computed_in, load
from nfox.train.trainer import LearnerTrainer


@dataclass(frozen=True, kw_only=True)
class ConsistencyJob(Job):
    """A model, whole or by adapters; its data are Jacobi trajectories.

    Args:
        joint: how it is trained.
        n: tokens that blocks must have; None takes those there are.
        given: learn the dataset's own answers beside the consistency, not the model's.
        local: learn to say what the next state says, not the last.
        ar_weight: what these answers count.
    """

    joint: Joint = field(default_factory=lambda: Joint(base="whole"))
    n: int | None = None
    given: bool = False
    local: bool = False
    ar_weight: float = AR_WEIGHT

    @override
    def load(self) -> LoadedModel:
        return load(self.model, self.loading, self.joint.base, "Jacobi decoding is for")

    @override
    def rows(self, source: str, loaded: LoadedModel, tell: Tell, *, lazy: bool) -> States:
        """Trajectories are tokens already.

        Raises:
            UsageError: if blocks have another length than was said.
        """
        length = min(self.max_length, loaded.target.max_context)
        found = read_trajectories(source, self.loading.cache_dir)
        ends = stop_ids_of(loaded, self._template(loaded))
        rows = States(found, ends, length, given=self.given, local=self.local)
        if self.n not in (None, rows.n):
            raise UsageError(
                f"{source} has blocks of {rows.n} tokens, --max_new_tokens is {self.n}",
                "leave it out, or collect trajectories of that length",
            )
        left = f", {rows.left_out} left out behind the end of their answer" if rows.left_out else ""
        tell(f"{source}: {len(rows)} answers, {rows.blocks} blocks of {rows.n} tokens{left}")
        if rows.labelled and not self.given:
            tell("the model's own answers are learned; --use_gt_labels True learns the data's")
        return rows

    def _template(self, loaded: LoadedModel) -> Template:
        """Return what knows which tokens end an answer; trajectories need no more of it."""
        try:
            return resolve(loaded.tokenizer, self.template, model_name=self.model)
        except ModelError:  # a model without one
            if self.template is not None:
                raise
            return resolve(loaded.tokenizer, "plain")

    @override
    def learner(self, loaded: LoadedModel) -> ConsistencyLearner:
        dtype = computed_in(loaded.target, self.loading, self.joint.base)
        return ConsistencyLearner(loaded.target, self.joint, dtype, self.ar_weight)

    @override
    def describe(self, learner: ConsistencyLearner) -> Iterator[str]:
        count, _ = size(learner)
        yield f"{self.model} for Jacobi decoding, {self.joint.spelled()}: {count:,} parameters"

    @override
    def finish(self, trainer: LearnerTrainer, loaded: LoadedModel, seconds: float) -> Done:
        found, folder = self.measured(trainer), Path(trainer.args.output_dir)
        learner = trainer.learner
        if trainer.is_world_process_zero() and isinstance(learner, ConsistencyLearner):
            learner.trained.write(folder, loaded.tokenizer, learner.dtype)
            training = {
                **self.facts(trainer, found, seconds),
                **found.others,
                "n": trainer.train_dataset.n,
                "answers": "data" if self.given else "target",
                "consistency_loss": "local" if self.local else "global",
                "ar_weight": self.ar_weight,
                "trained": self.joint.spelled(),
            }
            what = {"method": self.method, "base": full_name(self.model), "training": training}
            write_text(
                folder / TRAINING_FILE, json.dumps(what, indent=2, ensure_ascii=False) + "\n"
            )
        whole = self.joint.base == "whole"
        model, adapter = (str(folder / WHOLE), None) if whole else (self.model, folder / ADAPTER)
        return Done(folder, False, model, adapter, found)
