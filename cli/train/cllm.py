"""`nfox train cllm`: consistency training for Jacobi decoding, by the published flags."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from typing_extensions import override

from nfox.errors import UsageError
from nfox.files import provenance
from nfox.files.jsonl import WorkShare
from nfox.models.options import LoadedModel
from nfox.text.messages import questions_digest
from nfox.text.template import Template
from nfox.train.cllm.collect import CollectCounts, collect
from nfox.train.cllm.collector import Collector
from nfox.train.cllm.job import ConsistencyJob
from nfox.train.cllm.learner import AR_WEIGHT
from nfox.train.data.conversations import read_conversations
from nfox.train.heads.joint_training import JointTraining
from nfox.train.job import TrainingResult, full_name

from ..data.gather import OnDone, gather, report_failures
from .joint import idle_settings
from .kinds import TrainingKind, chat_command, measured_on, setting


@dataclass
class ConsistencyArguments:
    """Settings of consistency training: its losses, and which weights are trained."""

    max_new_tokens: int | None = setting("Tokens of a block; by default those of the trajectories.")
    use_gt_labels: bool = setting("Learn the dataset's answers too, not the model's own.", False)
    consistency: Literal["global", "local"] = setting(
        "Learn from the fixed point (global), or from the next state (local).", "global"
    )
    ar_weight: float = setting(
        "Weight of these answers' loss beside the consistency loss.", AR_WEIGHT
    )
    adapter: Literal["lora", "qlora"] | None = setting(
        "Train adapters on all linear layers, not all weights; qlora: on a 4 bit model."
    )
    qlora: bool = setting("The same as --adapter qlora.", False)
    lora_r: int = setting("Rank of the adapters.", JointTraining.rank)
    lora_alpha: int = setting("Adapters are scaled by alpha / rank.", JointTraining.alpha)
    lora_dropout: float = setting("Dropout of the adapters' input.", JointTraining.dropout)


_REACHED = {
    "lora": "the adapter of the embedded 15M model, which learned from 5,163 answers, took the tau "
    "of jacobi from 1.11 to 1.29 (2.42 to 2.50 beside n-grams), at some cost in quality",
    "whole": "the paper's CLLMs of 7B decode about 3 times as fast, at a cost of three points of "
    "accuracy",
}
"""What others reached, by what of the model is trained: nfox/demo/README.md has the figures."""


class ConsistencyKind(TrainingKind):
    """Consistency training of a model."""

    defaults = {"learning_rate": 2e-5, "warmup_steps": 0.03, "num_train_epochs": 1}  # noqa: RUF012
    unused = {"lazy_preprocess": "trajectories are tokens already"}  # noqa: RUF012

    @override
    def arguments(self) -> list[type]:
        return [ConsistencyArguments]

    @override
    def job(
        self, arguments: list[Any], typed: Container[str], common: dict[str, Any]
    ) -> ConsistencyJob:
        (consistency,) = arguments
        loading = common["loading"]
        if consistency.qlora or consistency.adapter == "qlora":
            if loading.quantisation == "8bit":
                raise UsageError("--qlora is for a 4 bit model", "leave --load_in_8bit out")
            common |= {"loading": replace(loading, quantisation="4bit")}
        if consistency.ar_weight < 0:
            raise UsageError(f"--ar_weight {consistency.ar_weight} is below 0")
        return ConsistencyJob(
            **common,
            joint=JointTraining(
                base="lora" if consistency.adapter or consistency.qlora else "whole",
                rank=consistency.lora_r,
                alpha=consistency.lora_alpha,
                dropout=consistency.lora_dropout,
            ),
            n=consistency.max_new_tokens,
            dataset_answers=consistency.use_gt_labels,
            local=consistency.consistency == "local",
            ar_weight=consistency.ar_weight,
        )

    @override
    def data_of(
        self,
        job: ConsistencyJob,
        conversations: Path,
        loaded: LoadedModel,
        template: Template,
        share: WorkShare,
    ) -> Path:
        """Return the file of the trajectories of the model's answers to its own questions."""
        length, n = job.synthesis.max_new_tokens, job.n or Collector.n
        collector = Collector(loaded, template, n, length, max_context=loaded.target.max_context)
        asked = read_conversations(str(conversations)).conversations
        out = conversations.with_name("trajectories.jsonl")
        facts = {
            "questions": questions_digest(asked),
            "n": n,
            "max_new_tokens": length,
            "model": full_name(job.model),
        }
        provenance.check(out, facts, str(conversations))
        about = {"command": job.command, "data": str(conversations), "read": "trajectories"}

        def collect_share(on_done: OnDone) -> CollectCounts:
            return collect(asked, collector, out, share=share, on_done=on_done)

        counts, total = gather(out, {**about, **facts}, share, len(asked), collect_share)
        report_failures(counts, total, "trajectory was collected")
        return out

    @override
    def idle(self, job: Any) -> dict[str, str]:
        return idle_settings(self.method, job.joint)

    @override
    def forecast(self, job: Any) -> str:
        return (
            f"to expect: {_REACHED[job.joint.base]}; this one may reach more or less, and learns "
            f"from at most {job.synthesis.count:,} answers"
        )

    @override
    def report(self, job: Any, result: TrainingResult) -> Iterator[str]:
        metrics: Any = result.metrics
        others = ", ".join(f"{name} {value:.4f}" for name, value in metrics.others.items())
        unit = "(tokens that an iteration puts right)"
        yield f"loss {metrics.loss:.4f}: {others} {unit}{measured_on(job)}"
        yield f"written to {result.adapter or result.model}; try it:"
        yield f"{chat_command(job, result)} --method jacobi -v"
