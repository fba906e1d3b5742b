"""`nfox data trajectories`: a model's answers by Jacobi decoding, with the state after every
iteration.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nfox.errors import UsageError

from .. import unused
from ..engine_arguments import EngineArguments
from ..facts import command_line, model_facts
from ..options.dataclass_options import option
from ..options.engine import ModelArguments
from ..processes import own_share, split_over_gpus
from .gather import OnDone, gather, report_failures

if TYPE_CHECKING:
    from nfox.engine import Engine
    from nfox.text.messages import Message
    from nfox.train.cllm.collect import CollectCounts
    from nfox.train.cllm.collector import Collector
    from nfox.train.data.conversations import ConversationDataset


@dataclass(frozen=True)
class TrajectoryArguments:
    """Options of `nfox data trajectories`: the dataset, the output file, and the trajectories."""

    data: Annotated[
        str | None,
        option(
            "Data",
            "Conversations, GSM8K, Spider or CodeSearchNet: a file or hub id.",
            "--data",
            "--filename",
        ),
    ] = None
    schemas: Annotated[
        Path | None, option("Data", "Spider's tables.json or folder of databases.", "--schemas")
    ] = None
    out: Annotated[
        Path | None, option("Data", "Where JSON lines are added; what is there stays.", "--out")
    ] = None
    data_size: Annotated[int | None, option("Data", "Records at most.", "--data-size", min=1)] = (
        None
    )
    max_prompt_chars: Annotated[
        int | None,
        option(
            "Data",
            "Leave out records whose question is longer (published for ShareGPT: 1024).",
            "--max-prompt-chars",
            min=1,
        ),
    ] = None
    n: Annotated[
        int, option("Trajectories", "Tokens of a block.", "--n", "--max-new-tokens", min=1)
    ] = 16
    max_new_seq_len: Annotated[
        int,
        option("Trajectories", "Tokens after which no block begins.", "--max-new-seq-len", min=1),
    ] = 512
    augment: Annotated[
        bool,
        option(
            "Trajectories",
            "Add states with half of their errors righted.",
            "--augment",
            "--use-aug",
        ),
    ] = False
    use_labels: Annotated[
        bool, option("Trajectories", "Keep the dataset's own answers too.", "--use-labels")
    ] = False
    gpus_per_process: Annotated[
        int,
        option("Data", "GPUs that a process splits the model over.", "--gpus-per-process", min=1),
    ] = 1


def trajectories(
    context: typer.Context, model: ModelArguments, arguments: TrajectoryArguments
) -> None:
    """Collect Jacobi trajectories of the first question of every record, to train a CLLM.

    Several processes share the work under `accelerate launch -m nfox.cli data trajectories ...`, or
    `torchrun -m nfox.cli -- data trajectories ...`, which without the dashes takes --n for its own.
    """
    data, out = arguments.data, arguments.out
    if data is None or out is None:
        missing = "--data" if data is None else "--out"
        raise UsageError(f"{missing} is missing", "nfox data trajectories --data FILE --out FILE")
    EngineArguments(model).check()
    share = own_share(model, arguments.gpus_per_process)
    from nfox.files import provenance
    from nfox.train.cllm.collect import collect
    from nfox.train.data.tasks import read_tasks

    dataset = read_tasks(data, arguments.schemas, replies=arguments.use_labels)
    dataset = answerable(dataset, arguments.max_prompt_chars)
    inputs = _trajectory_inputs(model, arguments, dataset.conversations)
    conversations = dataset.conversations[: arguments.data_size]
    provenance.check(out, inputs, data)  # before a model is loaded
    split = split_over_gpus(model, arguments.gpus_per_process)
    engine = EngineArguments.without_drafter(split).load()
    unused.report_typed(context, unused.without_drafter(engine))
    collector = _collector(engine, arguments)
    facts = {"command": command_line(), "data": data, "read": dataset.describe(), **inputs}

    def collect_share(on_done: OnDone) -> CollectCounts:
        return collect(conversations, collector, out, share=share, on_done=on_done)

    counts, total = gather(out, facts, share, len(conversations), collect_share)
    report_failures(counts, total, "trajectory was collected")


def _collector(engine: Engine, arguments: TrajectoryArguments) -> Collector:
    """Return the collector of an engine's trajectories, as the options say."""
    from nfox.train.cllm.collector import Collector

    return Collector(
        engine.model,
        engine.template,
        arguments.n,
        arguments.max_new_seq_len,
        arguments.augment,
        arguments.use_labels,
        engine.max_context,
    )


def answerable(dataset: ConversationDataset, max_chars: int | None = None) -> ConversationDataset:
    """Return a dataset without the conversations whose first question is empty or too long, which
    are counted.

    Args:
        dataset: the conversations.
        max_chars: the maximum number of characters of the first question.

    Raises:
        UsageError: if no conversation is left.
    """
    from nfox.train.cllm.trajectories import first_question

    questions = [first_question(messages)[-1].content for messages in dataset.conversations]
    pairs = list(zip(dataset.conversations, questions, strict=True))
    nonempty = [(messages, text) for messages, text in pairs if text.strip()]
    short = [messages for messages, text in nonempty if max_chars is None or len(text) <= max_chars]
    rest = replace(
        dataset,
        conversations=short,
        empty_questions=len(pairs) - len(nonempty),
        long_questions=len(nonempty) - len(short),
    )
    if not short:
        raise UsageError(
            f"no question is left: {rest.describe()}", "a higher --max-prompt-chars, or other data"
        )
    return rest


def _trajectory_inputs(
    model: ModelArguments, arguments: TrajectoryArguments, conversations: list[list[Message]]
) -> dict[str, Any]:
    """Return all that the trajectories depend on, which must be the same to resume a file."""
    from nfox.text.messages import questions_digest

    # The digest leaves replies out; where they are labels, they are what is written.
    labels = [
        [replace(message, role="label") for message in messages] for messages in conversations
    ]
    return {
        "questions": questions_digest(conversations),
        "labels": questions_digest(labels) if arguments.use_labels else None,
        "max_prompt_chars": arguments.max_prompt_chars,
        "n": arguments.n,
        "max_new_seq_len": arguments.max_new_seq_len,
        "augment": arguments.augment,
        **model_facts(model),
    }
