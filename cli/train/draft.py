"""`nfox train draft`: a draft model is distilled from its target."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from typing_extensions import override

from nfox.errors import UsageError
from nfox.train.draft.job import DraftJob, Sizes
from nfox.train.draft.learner import Distillation
from nfox.train.job import Done

from .kinds import Kind, about, command, measured_on

_SIZES = ("layers", "hidden", "intermediate", "heads")


@dataclass
class DraftArguments:
    """What learns, and by what."""

    draft: str | None = about("Folder or hub id of a draft model to go on with; else a new one.")
    layers: int = about("Of a new draft model.", Sizes.layers)
    hidden: int = about("Width of its states.", Sizes.hidden)
    intermediate: int = about("Width of its MLPs; 0 for three times the states.", 0)
    heads: int = about("Of its attention; 0 for one of each 64 of the states.", 0)
    divergence: Literal["forward", "reverse", "tv"] = about(
        "From the target's distribution: forward or reverse KL, or total variation.",
        Distillation.divergence,
    )
    first_choice: float = about(
        "What the cross-entropy with the target's likeliest token counts beside it.", 0.0
    )
    keep_choices: int = about(
        "Keep so many of the target's first choices, so that later epochs need no target; 0 keeps "
        "none and learns all of its distribution.",
        0,
    )


class DraftKind(Kind):
    """Distillation of a draft model."""

    @override
    def arguments(self) -> list[type]:
        return [DraftArguments]

    @override
    def job(self, given: list[Any], said: Container[str], common: dict[str, Any]) -> DraftJob:
        (own,) = given
        odd = [name for name in _SIZES if name in said]
        if own.draft and odd:
            raise UsageError(
                f"--{odd[0]} is a size of a new draft model, and --draft names one that is there",
                "leave one of them out",
            )
        return DraftJob(
            **common,
            draft=own.draft,
            sizes=Sizes(own.layers, own.hidden, own.intermediate, own.heads),
            how=Distillation(own.divergence, own.first_choice, own.keep_choices),
        )

    @override
    def report(self, job: Any, done: Done) -> Iterator[str]:
        found: Any = done.measured
        alpha, agreement = (found.others[name] for name in ("alpha", "agreement"))
        yield (
            f"loss {found.loss:.4f}; alpha {alpha:.3f} when both sample, {agreement:.3f} when both "
            f"take their likeliest token{measured_on(job)}"
        )
        yield from done.advice
        yield f"written to {done.folder}; try it:"
        yield command(job, done, "--draft-model", str(done.folder), "-v")
