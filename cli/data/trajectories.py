"""`nfox data trajectories`: a model's answers by Jacobi decoding, and all states on the way."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from nfox.errors import NfoxError, UsageError

from ..facts import command_line, model_facts
from ..load import check, load_plain
from ..options.dataclass_options import option
from ..options.groups import MethodArguments, ModelArguments
from ..processes import own_share, split_over_gpus
from .gather import OnDone, gather

if TYPE_CHECKING:
    from collections import Counter

    from nfox.text.messages import Message
    from nfox.train.cllm.collect import Collected
    from nfox.train.data.conversations import Conversations


@dataclass(frozen=True)
class TrajectoryArguments:
    """What is asked, and what is kept of the answers."""

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
    debug: Annotated[bool, option("Data", "Show tracebacks.", "--debug")] = False


def trajectories(model: ModelArguments, arguments: TrajectoryArguments) -> None:
    """Collect Jacobi trajectories of the first question of every record, to train a CLLM.

    Several processes share the work under `accelerate launch -m nfox.cli data trajectories ...`, or
    `torchrun -m nfox.cli -- data trajectories ...`, which without the dashes takes --n for its own.
    """
    data, out = arguments.data, arguments.out
    if data is None or out is None:
        missing = "--data" if data is None else "--out"
        raise UsageError(f"{missing} is missing", "nfox data trajectories --data FILE --out FILE")
    check(model, MethodArguments())
    share = own_share(model, arguments.gpus_per_process)
    from nfox.files import provenance
    from nfox.train.cllm.collect import Collector, collect
    from nfox.train.data.tasks import read

    found = read(data, arguments.schemas, replies=arguments.use_labels)
    found = askable(found, arguments.max_prompt_chars)
    asked = _asked(model, arguments, found.kept)
    kept = found.kept[: arguments.data_size]
    provenance.check(out, asked, data)  # before a model is loaded
    engine = load_plain(split_over_gpus(model, arguments.gpus_per_process))
    collector = Collector(
        engine.model,
        engine.template,
        arguments.n,
        arguments.max_new_seq_len,
        arguments.augment,
        arguments.use_labels,
        engine.max_context,
    )
    facts = {"command": command_line(), "data": data, "read": found.describe()}

    def work(on_done: OnDone) -> Collected:
        return collect(kept, collector, out, share=share, on_done=on_done)

    done, total = gather(out, facts | asked, share, len(kept), work)
    _complain(done, total)


def askable(found: Conversations, max_chars: int | None = None) -> Conversations:
    """Leave out conversations whose first question is empty or too long, and count them.

    Args:
        found: conversations.
        max_chars: characters of the first question at most.

    Raises:
        UsageError: if none is left.
    """
    from nfox.train.cllm.trajectories import question

    first = [question(messages)[-1].content for messages in found.kept]
    asked = [(one, text) for one, text in zip(found.kept, first, strict=True) if text.strip()]
    kept = [one for one, text in asked if max_chars is None or len(text) <= max_chars]
    empty, long = len(first) - len(asked), len(asked) - len(kept)
    left = replace(found, kept=kept, empty=empty, long=long)
    if not kept:
        raise UsageError(
            f"no question is left: {left.describe()}", "a higher --max-prompt-chars, or other data"
        )
    return left


def _complain(done: Collected, total: Counter[str] | None) -> None:
    """Say why records gave nothing; it is an error if none gave anything, in any process."""
    if total and not total["kept"] + total["before"]:
        why = f"; the last error: {done.reason}" if done.reason else ""
        raise NfoxError(
            f"no trajectory was collected: {total['failed']} records failed, "
            f"{total['repetitive']} answers repeat one token{why}"
        )
    if done.reason:
        print(f"the last one that failed: {done.reason}", file=sys.stderr)


def _asked(
    model: ModelArguments, arguments: TrajectoryArguments, kept: list[list[Message]]
) -> dict[str, Any]:
    """Return all that trajectories depend on, which must be the same to go on with a file."""
    from nfox.files.provenance import digest

    # Answers are no part of what is asked; where they are labels, they are part of what is kept.
    labels = [[replace(message, role="label") for message in messages] for messages in kept]
    return {
        "questions": digest(kept),
        "labels": digest(labels) if arguments.use_labels else None,
        "max_prompt_chars": arguments.max_prompt_chars,
        "n": arguments.n,
        "max_new_seq_len": arguments.max_new_seq_len,
        "augment": arguments.augment,
        "max_context": model.max_context,
        **model_facts(model),
    }
