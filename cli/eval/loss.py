"""`nfox eval loss`: how well a model foretells replies it has not learned from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from .. import unused
from ..engine_arguments import EngineArguments
from ..known_models import usual_model
from ..options.dataclass_options import option
from ..options.engine import ModelArguments
from ..printing import say
from .answering import required
from .results import report_left_out


@dataclass(frozen=True)
class LossArguments:
    """What is read."""

    data: Annotated[
        str | None, option("Data", "Conversations or tasks: a file or hub id.", "--data")
    ] = None
    schemas: Annotated[
        Path | None, option("Data", "Spider's tables.json or folder of databases.", "--schemas")
    ] = None
    limit: Annotated[int, option("Data", "Conversations at most.", "--limit", min=1)] = 200
    max_length: Annotated[
        int, option("Data", "Tokens of a conversation at most.", "--max-length", min=8)
    ] = 2048


def loss(context: typer.Context, model: ModelArguments, arguments: LossArguments) -> None:
    """Measure the loss of a model on held-out replies, a mean over their tokens."""
    data = required(arguments.data, "--data", "nfox eval loss --model NAME --data FILE.jsonl")
    engine_arguments = EngineArguments.without_drafter(usual_model(model))
    engine_arguments.check()
    from nfox.train.data.rows import Rows
    from nfox.train.data.tasks import read_tasks
    from nfox.train.held_out_loss import held_out_loss

    conversations = report_left_out(data, read_tasks(data, arguments.schemas))[: arguments.limit]
    engine = engine_arguments.load()
    unused.report_typed(context, unused.without_drafter(engine))
    length = min(arguments.max_length, engine.max_context)
    rows = Rows(conversations, engine.template, engine.model.tokenizer, length)
    mean, count = held_out_loss(engine.model.target, rows)
    say(f"loss {mean:.4f} per token (perplexity {math.exp(mean):.2f})")
    say(f"over {count} tokens of the replies in {len(rows)} conversations of {data}")
