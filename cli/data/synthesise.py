"""`nfox data synthesise`: conversations that a model has with itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from nfox.errors import UsageError
from nfox.train.data.synthesis_settings import Synthesis

from .. import unused
from ..engine_arguments import EngineArguments
from ..facts import command_line, model_facts
from ..options.dataclass_options import option
from ..options.engine import ModelArguments
from ..processes import own_share, split_over_gpus
from .own_conversations import check_own, read_beginnings, write_own


@dataclass(frozen=True)
class SynthesiseArguments:
    """Options of `nfox data synthesise`: the output file, its questions and their answers."""

    out: Annotated[
        Path | None, option("Data", "Where lines are added; what is there stays.", "--out")
    ] = None
    count: Annotated[
        int, option("Data", "Conversations that the file is to have.", "--count", min=1)
    ] = Synthesis.count
    batch: Annotated[int, option("Data", "Conversations at a time.", "--batch", min=1)] = (
        Synthesis.batch
    )
    question_tokens: Annotated[
        int,
        option("Questions", "Drop questions that are longer.", "--question-tokens", min=1),
    ] = Synthesis.question_tokens
    question_temperature: Annotated[
        float, option("Questions", "Questions differ by it.", "--question-temperature", min=0)
    ] = Synthesis.question_temperature
    script: Annotated[
        str | None,
        option("Questions", "Leave out those in others: latin, cyrillic, cjk, ...", "--script"),
    ] = None
    beginnings: Annotated[
        Path | None,
        option("Questions", "They begin with its lines, each with one by chance.", "--beginnings"),
    ] = None
    seed: Annotated[int, option("Questions", "Of their noise.", "--seed")] = Synthesis.seed
    max_new_tokens: Annotated[
        int, option("Answers", "Tokens of an answer at most.", "--max-new-tokens", min=1)
    ] = Synthesis.max_new_tokens
    temperature: Annotated[
        float, option("Answers", "0 takes the likeliest token.", "--temperature", "-t", min=0)
    ] = Synthesis.temperature
    gpus_per_process: Annotated[
        int,
        option("Data", "GPUs that a process splits the model over.", "--gpus-per-process", min=1),
    ] = 1


def synthesise(
    context: typer.Context, model: ModelArguments, arguments: SynthesiseArguments
) -> None:
    """Let the target ask questions and answer them, to learn from: no other data are needed.

    Questions are what it writes where its template has a user speak. Several processes share the
    work under `accelerate launch -m nfox.cli data synthesise ...`.
    """
    out = arguments.out
    if out is None:
        raise UsageError("--out is missing", "nfox data synthesise --model NAME --out own.jsonl")
    EngineArguments(model).check()
    share = own_share(model, arguments.gpus_per_process)
    settings = Synthesis(
        arguments.count,
        arguments.max_new_tokens,
        arguments.batch,
        arguments.question_tokens,
        arguments.question_temperature,
        arguments.temperature,
        arguments.script,
        read_beginnings(arguments.beginnings) if arguments.beginnings else (),
        arguments.seed,
    )
    facts = model_facts(model)
    check_own(out, settings, facts)  # before a model is loaded
    split = split_over_gpus(model, arguments.gpus_per_process)
    engine = EngineArguments.without_drafter(split).load()
    unused.report_typed(context, unused.without_drafter(engine))
    facts["command"] = command_line()
    write_own(out, settings, engine.model, engine.template, facts, share, engine.max_context)
