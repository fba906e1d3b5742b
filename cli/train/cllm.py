"""`nfox train cllm`: a model is trained for Jacobi decoding, by the published flags."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from typing_extensions import override

from nfox.errors import UsageError
from nfox.train.cllm.job import ConsistencyJob
from nfox.train.cllm.learner import AR_WEIGHT
from nfox.train.heads.joint_options import Joint
from nfox.train.job import Done

from .kinds import Kind, about, command, measured_on


@dataclass
class ConsistencyArguments:
    """What is learned from trajectories, and how the model is trained."""

    max_new_tokens: int | None = about("Tokens of a block; by default those of the trajectories.")
    use_gt_labels: bool = about("Learn the dataset's answers too, not the model's own.", False)
    consistency: Literal["global", "local"] = about(
        "A state is to say what is said after the fixed point, or after the next state.", "global"
    )
    ar_weight: float = about("What these answers count beside the consistency.", AR_WEIGHT)
    adapter: Literal["lora", "qlora"] | None = about(
        "Train adapters on all linear layers, not all weights; qlora: on a 4 bit model."
    )
    qlora: bool = about("The same as --adapter qlora.", False)
    lora_r: int = about("Rank of the adapters.", Joint.rank)
    lora_alpha: int = about("They are scaled by alpha / rank.", Joint.alpha)
    lora_dropout: float = about("Of what goes into the adapters.", Joint.dropout)


class ConsistencyKind(Kind):
    """Consistency training."""

    defaults = {"learning_rate": 2e-5, "warmup_steps": 0.03, "num_train_epochs": 1}  # noqa: RUF012
    unused = {"lazy_preprocess": "trajectories are tokens already"}  # noqa: RUF012

    @override
    def arguments(self) -> list[type]:
        return [ConsistencyArguments]

    @override
    def job(self, given: list[Any], said: Container[str], common: dict[str, Any]) -> ConsistencyJob:
        (own,) = given
        loading = common["loading"]
        if own.qlora or own.adapter == "qlora":
            if loading.quantisation == "8bit":
                raise UsageError("--qlora is for a 4 bit model", "leave --load_in_8bit out")
            common |= {"loading": replace(loading, quantisation="4bit")}
        if own.ar_weight < 0:
            raise UsageError(f"--ar_weight {own.ar_weight} is below 0")
        return ConsistencyJob(
            **common,
            joint=Joint(
                base="lora" if own.adapter or own.qlora else "whole",
                rank=own.lora_r,
                alpha=own.lora_alpha,
                dropout=own.lora_dropout,
            ),
            n=own.max_new_tokens,
            given=own.use_gt_labels,
            local=own.consistency == "local",
            ar_weight=own.ar_weight,
        )

    @override
    def report(self, job: Any, done: Done) -> Iterator[str]:
        found: Any = done.measured
        others = ", ".join(f"{name} {value:.4f}" for name, value in found.others.items())
        puts = "(tokens that an iteration puts right)"
        yield f"loss {found.loss:.4f}: {others} {puts}{measured_on(job)}"
        yield f"written to {done.adapter or done.model}; try it:"
        yield f"{command(job, done)} --method jacobi -v"
