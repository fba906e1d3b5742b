"""The job that distils a draft model from its target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from typing_extensions import override

from nfox.decoding import costs
from nfox.errors import ModelError, UsageError
from nfox.files.atomic import complete_files
from nfox.models.draft_pairs import check_pair
from nfox.models.loading import load_model
from nfox.models.options import LoadedModel
from nfox.models.transformers_target import TransformersTarget
from nfox.train.data.numbered_rows import NumberedRows
from nfox.train.draft.distillation import Distillation
from nfox.train.draft.learner import DraftLearner
from nfox.train.job import Job, Log, TrainingResult, parameter_count
from nfox.train.loading import load
from nfox.train.metrics import MeanMetrics
from nfox.train.trainer import LearnerTrainer

_MAX_GAMMA = 16
"""The longest chain of drafted tokens that is considered."""


@dataclass(frozen=True)
class DraftSizes:
    """The sizes of a new draft model, which is a Llama.

    Args:
        layers: the number of its layers.
        hidden: the width of its hidden states.
        intermediate: the width of its MLPs; 0 for three times that of the hidden states.
        heads: the number of its attention heads; 0 for one for each 64 of the hidden width.

    Raises:
        UsageError: if no model has these sizes.
    """

    layers: int = 2
    hidden: int = 128
    intermediate: int = 0
    heads: int = 0

    def __post_init__(self) -> None:
        if min(self.layers, self.hidden) < 1 or min(self.intermediate, self.heads) < 0:
            raise UsageError("sizes of a draft model are above 0")
        heads = self.attention_heads
        if self.hidden % heads or self.hidden // heads % 2:
            raise UsageError(
                f"--hidden {self.hidden} is not an even number for each of {heads} heads",
                "choose another --heads",
            )

    @property
    def attention_heads(self) -> int:
        """The number of attention heads, the default filled in."""
        return self.heads or max(self.hidden // 64, 1)

    def new_model(self, target: TransformersTarget) -> LlamaForCausalLM:
        """Return an untrained model with the vocabulary and the context of a target."""
        special_tokens = ("bos_token_id", "eos_token_id", "pad_token_id")
        config = LlamaConfig(
            vocab_size=target.vocabulary_size,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate or 3 * self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.attention_heads,
            num_key_value_heads=self.attention_heads,
            max_position_embeddings=target.max_context,
            tie_word_embeddings=True,
            **{name: getattr(target.config, name, None) for name in special_tokens},
        )
        return LlamaForCausalLM(config).to(target.output_device)


@dataclass(frozen=True, kw_only=True)
class DraftJob(Job):
    """The distillation of a draft model from `model`.

    Args:
        draft: the folder or hub id of a draft model to train further; None makes a new one.
        sizes: the sizes of a new draft model.
        distillation: the settings of the loss.
    """

    draft: str | None = None
    sizes: DraftSizes = field(default_factory=DraftSizes)
    distillation: Distillation = field(default_factory=Distillation)

    @override
    def load(self) -> LoadedModel:
        return load(self.model, self.loading, "frozen", "draft models learn from")

    @override
    def rows(self, data_path: str, loaded: LoadedModel, log: Log, *, lazy: bool) -> NumberedRows:
        rows: Any = super().rows(data_path, loaded, log, lazy=lazy)
        return NumberedRows(rows)

    @override
    def learner(self, loaded: LoadedModel) -> DraftLearner:
        """Return the learner of a new draft model, or of the one that the job names.

        Raises:
            ModelError: if the draft model that the job names has another tokenizer than the
                target, or cannot be trained.
        """
        draft = (
            self._load_draft(loaded)
            if self.draft
            else TransformersTarget(self.sizes.new_model(loaded.target))
        )
        draft.model.requires_grad_(True)
        return DraftLearner(draft, loaded.target, self.distillation)

    def _load_draft(self, loaded: LoadedModel) -> TransformersTarget:
        """Load the draft model that the job names, in float32."""
        loading = replace(self.loading, dtype="float32", quantisation=None)
        draft = load_model(str(self.draft), loading)
        check_pair(loaded, draft)
        if not draft.target.can_unembed:
            raise ModelError(
                f"{self.draft} turns hidden states into logits in a way that training cannot "
                "follow",
                "leave --draft out to make a new draft model",
            )
        return draft.target

    @override
    def describe(self, learner: DraftLearner) -> Iterator[str]:
        count, megabytes = parameter_count(learner)
        draft = self.draft or "a new draft model"
        yield f"{draft} for {self.model}: {count:,} parameters ({megabytes:.1f} MB on disk)"

    @override
    def finish(
        self, trainer: LearnerTrainer, loaded: LoadedModel, seconds: float
    ) -> TrainingResult:
        metrics: MeanMetrics = self.final_metrics(trainer)
        folder, learner = Path(trainer.args.output_dir), trainer.learner
        advice = ""
        if trainer.is_world_process_zero() and isinstance(learner, DraftLearner):
            model = learner.student.model.to(torch.bfloat16)
            model.config.use_cache = True
            with complete_files(folder) as part:
                model.save_pretrained(part)
                loaded.tokenizer.save_pretrained(part)
            training = {
                **self.training_record(trainer, metrics, seconds),
                **metrics.others,
                "draft": self.draft,
                "divergence": self.distillation.divergence,
                "first_choice": self.distillation.top1_weight,
                "keep_choices": self.distillation.cached_top_k,
            }
            self.write_record(folder, training)
            advice = self._gamma_advice(folder, loaded.target, metrics.others)
        return TrainingResult(folder, False, self.model, None, metrics, (advice,))

    def _gamma_advice(
        self, folder: Path, target: TransformersTarget, rates: Mapping[str, float]
    ) -> str:
        """Return a line with the fastest gamma on this machine, greedily and when sampling.

        Args:
            folder: the folder of the draft model.
            target: the target.
            rates: the shares of accepted tokens, "agreement" and "alpha".
        """
        loading = replace(self.loading, quantisation=None)
        draft = load_model(str(folder), loading).target
        draft_seconds = costs.measure_costs(draft, time_limit=0.2).forward_seconds(1)
        target_costs = costs.measure_costs(target)
        share = draft_seconds / target_costs.forward_seconds(1)
        ratio = f"a drafted token takes {share:.2f} of a forward"
        expectations = []
        for mode, name in (("greedily", "agreement"), ("sampling", "alpha")):
            gamma = target_costs.best_gamma(_MAX_GAMMA, draft_seconds, alpha=rates[name])
            speed = target_costs.speedup(gamma, rates[name], draft_seconds)
            gain = f"gamma {gamma} for {speed:.2f} times the speed" if gamma else "it does not pay"
            expectations.append(f"{mode} {gain}")
        return f"{ratio}; what to expect of chains on this machine: {', '.join(expectations)}"
