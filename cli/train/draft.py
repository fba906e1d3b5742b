"""`nfox train draft`: distillation of a draft model from its target."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from typing_extensions import override

from nfox.errors import UsageError
from nfox.train.draft.distillation import Distillation
from nfox.train.draft.job import DraftJob, DraftSizes
from nfox.train.job import TrainingResult

from .kinds import TrainingKind, chat_command, measured_on, setting

_SIZES = ("layers", "hidden", "intermediate", "heads")


@dataclass
class DraftArguments:
    """Settings of distillation: the draft model, and its loss."""

    draft: str | None = setting("Folder or hub id of a draft model to go on with; else a new one.")
    layers: int = setting("Layers of a new draft model.", DraftSizes.layers)
    hidden: int = setting("Width of its hidden states.", DraftSizes.hidden)
    intermediate: int = setting("Width of its MLPs; 0 for three times that of the states.", 0)
    heads: int = setting("Its attention heads; 0 for one for each 64 of the states' width.", 0)
    divergence: Literal["forward", "reverse", "tv"] = setting(
        "Divergence from the target's distribution: forward or reverse KL, or total variation.",
        Distillation.divergence,
    )
    first_choice: float = setting(
        "Weight of the cross-entropy with the target's likeliest token beside the divergence.", 0.0
    )
    keep_choices: int = setting(
        "Cache the target's probabilities of that many likeliest tokens, so that later epochs need "
        "no target; 0 caches none and learns its whole distribution.",
        0,
    )


class DraftKind(TrainingKind):
    """Distillation of a draft model."""

    @override
    def arguments(self) -> list[type]:
        return [DraftArguments]

    @override
    def job(self, arguments: list[Any], typed: Container[str], common: dict[str, Any]) -> DraftJob:
        (draft,) = arguments
        sizes = [name for name in _SIZES if name in typed]
        if draft.draft and sizes:
            raise UsageError(
                f"--{sizes[0]} is a size of a new draft model, and --draft names one that is there",
                "leave one of them out",
            )
        return DraftJob(
            **common,
            draft=draft.draft,
            sizes=DraftSizes(draft.layers, draft.hidden, draft.intermediate, draft.heads),
            distillation=Distillation(draft.divergence, draft.first_choice, draft.keep_choices),
        )

    @override
    def forecast(self, job: Any) -> str:
        # As measured in docs/benchmark.md; what it learned from, nfox/demo/README.md says.
        return (
            "to expect: the draft model of the embedded 15M model, which learned from more than "
            "12,000 conversations, reached a tau of 3.3, on a CPU 1.6 times the speed; this one "
            f"may reach more or less, and learns from at most {job.synthesis.count:,}"
        )

    @override
    def report(self, job: Any, result: TrainingResult) -> Iterator[str]:
        metrics: Any = result.metrics
        alpha, agreement = (metrics.others[name] for name in ("alpha", "agreement"))
        yield (
            f"loss {metrics.loss:.4f}; alpha {alpha:.3f} when both sample, {agreement:.3f} when "
            f"both take their likeliest token{measured_on(job)}"
        )
        yield from result.advice
        yield f"written to {result.folder}; try it:"
        yield chat_command(job, result, "--draft-model", str(result.folder), "-v")
