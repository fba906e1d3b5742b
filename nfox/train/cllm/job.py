"""The job that trains a model for Jacobi decoding: consistency training (CLLM)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from typing_extensions import override

from nfox.errors import ModelError, UsageError
from nfox.models.options import LoadedModel
from nfox.models.prompt import stop_ids_of
from nfox.models.training_folders import ADAPTER_FOLDER, BASE_FOLDER
from nfox.text.resolve import resolve
from nfox.text.template import Template
from nfox.train.cllm.answers import AnswerSet
from nfox.train.cllm.learner import AR_WEIGHT, ConsistencyLearner
from nfox.train.cllm.rows import TrajectoryRows
from nfox.train.cllm.trajectories import read_trajectories
from nfox.train.heads.joint_training import JointTraining
from nfox.train.job import Job, Log, TrainingResult, parameter_count
from nfox.train.loading import computation_dtype, load
from nfox.train.trainer import LearnerTrainer


@dataclass(frozen=True, kw_only=True)
class ConsistencyJob(Job):
    """The consistency training of a model, all weights or adapters, on its Jacobi trajectories.

    Args:
        joint: the settings of the model's training.
        n: the number of tokens that blocks must have; None accepts any.
        dataset_answers: learn the dataset's own answers by the autoregressive loss, not the
            model's.
        local: use the local consistency loss, which learns from the next state, not the global
            one, which learns from the fixed point.
        ar_weight: the weight of the autoregressive loss.
    """

    joint: JointTraining = field(default_factory=lambda: JointTraining(base="whole"))
    n: int | None = None
    dataset_answers: bool = False
    local: bool = False
    ar_weight: float = AR_WEIGHT

    @override
    def load(self) -> LoadedModel:
        return load(self.model, self.loading, self.joint.base, "Jacobi decoding is for")

    @override
    def rows(self, data_path: str, loaded: LoadedModel, log: Log, *, lazy: bool) -> TrajectoryRows:
        """Read the trajectories of a dataset and return them as rows.

        Args:
            data_path: the file or hub dataset of trajectories.
            loaded: the model, whose stop tokens end answers.
            log: takes a line about what was read.
            lazy: not used, since trajectories are token ids already.

        Raises:
            UsageError: if the blocks have another length than the job's `n`.
        """
        dataset = AnswerSet(
            read_trajectories(data_path, self.loading.cache_dir),
            stop_ids_of(loaded, self._template(loaded)),
            min(self.max_length, loaded.target.max_context),
            vocabulary_size=loaded.target.vocabulary_size,
            dataset_answers=self.dataset_answers,
            local=self.local,
        )
        n, left_out = dataset.n, dataset.left_out
        if self.n not in (None, n):
            raise UsageError(
                f"{data_path} has blocks of {n} tokens, --max_new_tokens is {self.n}",
                "leave it out, or collect trajectories of that length",
            )
        rows = TrajectoryRows(dataset)
        left = f", {left_out} left out behind the end of their answer" if left_out else ""
        log(f"{data_path}: {len(rows)} answers, {rows.block_count} blocks of {n} tokens{left}")
        if dataset.has_labels and not self.dataset_answers:
            log("the model's own answers are learned; --use_gt_labels True learns the data's")
        return rows

    def _template(self, loaded: LoadedModel) -> Template:
        """Return the conversation template, of which only the stop tokens are needed."""
        try:
            return resolve(loaded.tokenizer, self.template, model_name=self.model)
        except ModelError:
            if self.template is not None or loaded.tokenizer.chat_template:
                raise
            return resolve(loaded.tokenizer, "plain")

    @override
    def learner(self, loaded: LoadedModel) -> ConsistencyLearner:
        dtype = computation_dtype(loaded.target, self.loading, self.joint.base)
        return ConsistencyLearner(loaded.target, self.joint, dtype, self.ar_weight)

    @override
    def describe(self, learner: ConsistencyLearner) -> Iterator[str]:
        count, _ = parameter_count(learner)
        yield f"{self.model} for Jacobi decoding, {self.joint.describe()}: {count:,} parameters"

    @override
    def finish(
        self, trainer: LearnerTrainer, loaded: LoadedModel, seconds: float
    ) -> TrainingResult:
        metrics, folder = self.final_metrics(trainer), Path(trainer.args.output_dir)
        learner = trainer.learner
        if trainer.is_world_process_zero() and isinstance(learner, ConsistencyLearner):
            learner.trained_base.write(folder, loaded.tokenizer, learner.dtype)
            training = {
                **self.training_record(trainer, metrics, seconds),
                **metrics.others,
                "n": trainer.train_dataset.block_length,
                "answers": "data" if self.dataset_answers else "target",
                "consistency_loss": "local" if self.local else "global",
                "ar_weight": self.ar_weight,
                "trained": self.joint.describe(),
            }
            self.write_record(folder, training)
        if self.joint.base == "whole":
            return TrainingResult(folder, False, str(folder / BASE_FOLDER), None, metrics)
        return TrainingResult(folder, False, self.model, folder / ADAPTER_FOLDER, metrics)
