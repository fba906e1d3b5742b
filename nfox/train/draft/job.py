"""A draft model is distilled from its target."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from typing_extensions import override

from nfox.decoding import costs
from nfox.drafters.spec import check_pair
from nfox.errors import ModelError, UsageError
from nfox.files.atomic import write_text
from nfox.heads.checkpoint import TRAINING_FILE
from nfox.models.loading import load_model
from nfox.models.options import LoadedModel
from nfox.models.transformers_target import TransformersTarget
from nfox.train.draft.learner import Distillation, DraftLearner, Numbered
from nfox.train.job import Done, Job, Tell, full_name, size
from nfox.train.loading import load
from nfox.train.metrics import Means
from nfox.train.trainer import LearnerTrainer

_LONGEST = 16  # drafts


@dataclass(frozen=True)
class Sizes:
    """Of a new draft model, a Llama.

    Args:
        layers: of it.
        hidden: width of its states.
        intermediate: width of its MLPs; 0 for three times the states.
        heads: of its attention; 0 for one of each 64 of the states.

    Raises:
        UsageError: if no model is of these sizes.
    """

    layers: int = 2
    hidden: int = 128
    intermediate: int = 0
    heads: int = 0

    def __post_init__(self) -> None:
        if min(self.layers, self.hidden) < 1 or min(self.intermediate, self.heads) < 0:
            raise UsageError("sizes of a draft model are above 0")
        if self.hidden % self.attention or self.hidden // self.attention % 2:
            raise UsageError(
                f"--hidden {self.hidden} is not an even number for each of {self.attention} heads",
                "choose another --heads",
            )

    @property
    def attention(self) -> int:
        """How many heads there are."""
        return self.heads or max(self.hidden // 64, 1)

    def new(self, target: TransformersTarget) -> LlamaForCausalLM:
        """Return an untrained model over a target's vocabulary."""
        special = ("bos_token_id", "eos_token_id", "pad_token_id")
        config = LlamaConfig(
            vocab_size=target.vocabulary_size,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate or 3 * self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.attention,
            num_key_value_heads=self.attention,
            max_position_embeddings=target.max_context,
            tie_word_embeddings=True,
            **{name: getattr(target.config, name, None) for name in special},
        )
        return LlamaForCausalLM(config).to(target.output_device)


@dataclass(frozen=True, kw_only=True)
class DraftJob(Job):
    """A draft model for `model`.

    Args:
        draft: folder or hub id of one to go on with; None for a new one.
        sizes: of a new one.
        how: it learns.
    """

    draft: str | None = None
    sizes: Sizes = field(default_factory=Sizes)
    how: Distillation = field(default_factory=Distillation)

    @override
    def load(self) -> LoadedModel:
        return load(self.model, self.loading, "frozen", "draft models learn from")

    @override
    def rows(self, source: str, loaded: LoadedModel, tell: Tell, *, lazy: bool) -> Numbered:
        rows: Any = super().rows(source, loaded, tell, lazy=lazy)
        return Numbered(rows)

    @override
    def learner(self, loaded: LoadedModel) -> DraftLearner:
        """Raises:
        ModelError: if a given draft model has another tokenizer, or cannot learn this.
        """
        draft = (
            self._given(loaded) if self.draft else TransformersTarget(self.sizes.new(loaded.target))
        )
        draft.model.requires_grad_(True)
        return DraftLearner(draft, loaded.target, self.how)

    def _given(self, loaded: LoadedModel) -> TransformersTarget:
        loading = replace(self.loading, dtype="float32", quantisation=None)
        given = load_model(str(self.draft), loading)
        check_pair(loaded, given)
        if not given.target.can_unembed:
            raise ModelError(
                f"{self.draft} turns hidden states into logits in a way that training cannot "
                "follow",
                "leave --draft out to make a new draft model",
            )
        return given.target

    @override
    def describe(self, learner: DraftLearner) -> Iterator[str]:
        count, written = size(learner)
        made = self.draft or "a new draft model"
        yield f"{made} for {self.model}: {count:,} parameters ({written:.1f} MB on disk)"

    @override
    def finish(self, trainer: LearnerTrainer, loaded: LoadedModel, seconds: float) -> Done:
        found: Means = self.measured(trainer)
        folder, learner = Path(trainer.args.output_dir), trainer.learner
        advice = ""
        if trainer.is_world_process_zero() and isinstance(learner, DraftLearner):
            model = learner.student.model.to(torch.bfloat16)
            model.config.use_cache = True
            model.save_pretrained(folder)
            loaded.tokenizer.save_pretrained(folder)
            training = {
                **self.facts(trainer, found, seconds),
                **found.others,
                "draft": self.draft,
                "divergence": self.how.divergence,
                "first_choice": self.how.first_choice,
                "keep_choices": self.how.kept,
            }
            what = {"method": self.method, "base": full_name(self.model), "training": training}
            write_text(
                folder / TRAINING_FILE, json.dumps(what, indent=2, ensure_ascii=False) + "\n"
            )
            advice = self._gamma(folder, loaded.target, found.others)
        return Done(folder, False, self.model, None, found, (advice,))

    def _gamma(self, folder: Path, target: TransformersTarget, found: Mapping[str, float]) -> str:
        """Say how many tokens are best drafted here, by what was written and measured."""
        loading = replace(self.loading, quantisation=None)
        draft = costs.measure_costs(
            load_model(str(folder), loading).target, time_limit=0.2
        ).forward_seconds(1)
        measured = costs.measure_costs(target)
        ratio = f"a drafted token takes {draft / measured.forward_seconds(1):.2f} of a forward"
        said = []
        for when, name in (("greedily", "agreement"), ("sampling", "alpha")):
            gamma = measured.best_gamma(_LONGEST, draft, alpha=found[name])
            speed = measured.speedup(gamma, found[name], draft)
            pays = f"gamma {gamma} for {speed:.2f} times the speed" if gamma else "it does not pay"
            said.append(f"{when} {pays}")
        return f"{ratio}; what to expect of chains on this machine: {', '.join(said)}"
