"""A model's conversations with itself, as `nfox data synthesise` and `nfox train` make them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..printing import tell
from .gather import OnDone, gather, report_failures

if TYPE_CHECKING:
    from nfox.files.jsonl import WorkShare
    from nfox.models.options import LoadedModel
    from nfox.text.template import Template
    from nfox.train.data.local_answerer import LocalAnswerer
    from nfox.train.data.question_sampler import QuestionSampler
    from nfox.train.data.self_distillation import DistillCounts
    from nfox.train.data.synthesis_settings import Synthesis

_QUESTIONS = "the model's own questions"


def read_beginnings(file: Path) -> tuple[str, ...]:
    """Return what questions are to begin with, the lines of a text file.

    Raises:
        UsageError: if the file cannot be read, or has no lines.
    """
    from nfox.files.reading import read_text, refusing

    with refusing(file, hint="expected the beginning of a question in each line"):
        lines = tuple(line.strip() for line in read_text(file).splitlines() if line.strip())
        if not lines:
            raise ValueError("it is empty")
    return lines


def _inputs(settings: Synthesis, model: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that the conversations depend on, which must be the same to go on.

    Args:
        settings: how they are made.
        model: the facts of the model.
    """
    made = asdict(settings)
    for name in ("count", "batch", "seed"):
        del made[name]
    made["beginnings"] = settings.beginnings or None  # which files of earlier versions have not
    return {"questions": _QUESTIONS, **made, **model}


def check_own(out: Path, settings: Synthesis, model: Mapping[str, Any]) -> None:
    """Check that a file of a model's conversations with itself can be begun or gone on with.

    Args:
        out: the file.
        settings: how they are made.
        model: the facts of the model.

    Raises:
        UsageError: if it was made in another way, or there is no such script.
    """
    from nfox.files import provenance
    from nfox.train.data.question_filter import QuestionFilter

    provenance.check(out, _inputs(settings, model), _QUESTIONS)
    QuestionFilter(settings.script)


def write_own(
    out: Path,
    settings: Synthesis,
    model: LoadedModel,
    template: Template,
    facts: Mapping[str, Any],
    share: WorkShare,
    max_context: int | None = None,
) -> None:
    """Add conversations to a file until it has all; print how long that takes, and the counts.

    Args:
        out: the file.
        settings: how they are made.
        model: the target.
        template: its conversation template.
        facts: the facts of the model, and the command line, for the provenance.
        share: this process's share.
        max_context: the maximum number of positions of a conversation; by default the model's own.

    Raises:
        NfoxError: if the model asks nothing that can be used, answers nothing, or the disk is full.
    """
    from nfox.train.callbacks import format_duration
    from nfox.train.data.synthesis import forecast_seconds, synthesise

    sampler, answerer = _makers(model, template, settings, max_context)
    duration = format_duration(forecast_seconds(sampler, settings, len(share.of(settings.count))))
    tell(f"{settings.count:,} conversations of the model with itself: about {duration} in all")

    def write_share(on_done: OnDone) -> DistillCounts:
        return synthesise(sampler, answerer, out, settings, share=share, on_done=on_done)

    known = {"data": _QUESTIONS, "read": _QUESTIONS, **_inputs(settings, facts)}
    counts, total = gather(out, known, share, settings.count, write_share)
    report_failures(counts, total, "conversation was answered")


def _makers(
    model: LoadedModel, template: Template, settings: Synthesis, max_context: int | None
) -> tuple[QuestionSampler, LocalAnswerer]:
    """Return what makes a model's questions, and what its answers, see `write_own`."""
    from nfox.train.data.local_answerer import LocalAnswerer
    from nfox.train.data.question_sampler import QuestionSampler

    length, temperature = settings.question_tokens, settings.question_temperature
    sampler = QuestionSampler(model, template, length, temperature, max_context)
    length, temperature = settings.max_new_tokens, settings.temperature
    return sampler, LocalAnswerer(model, template, length, temperature, max_context)
