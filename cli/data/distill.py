"""`nfox data distill`: a dataset's questions, answered by the target itself."""

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

    from nfox.train.data.local_answers import Answerer
    from nfox.train.data.self_distillation import Replayed


@dataclass(frozen=True)
class DistillArguments:
    """What is asked, who answers, and where the answers go."""

    data: Annotated[
        str | None, option("Data", "JSON, JSONL or a hub dataset of conversations.", "--data")
    ] = None
    out: Annotated[
        Path | None, option("Data", "Where lines are added; what is there is skipped.", "--out")
    ] = None
    limit: Annotated[int | None, option("Data", "Conversations at most.", "--limit", min=1)] = None
    batch: Annotated[int, option("Data", "Conversations at a time.", "--batch", min=1)] = 16
    max_new_tokens: Annotated[
        int, option("Data", "Tokens of a reply at most.", "--max-new-tokens", min=1)
    ] = 512
    temperature: Annotated[
        float, option("Data", "0 takes the likeliest token.", "--temperature", "-t", min=0)
    ] = 0.0
    url: Annotated[
        str | None, option("Server", "Chat completions of an OpenAI-compatible server.", "--url")
    ] = None
    concurrency: Annotated[int, option("Server", "Requests at once.", "--concurrency", min=1)] = 64
    api_key: Annotated[str | None, option("Server", "For its authorization.", "--api-key")] = None
    gpus_per_process: Annotated[
        int,
        option("Data", "GPUs that a process splits the model over.", "--gpus-per-process", min=1),
    ] = 1
    debug: Annotated[bool, option("Data", "Show tracebacks.", "--debug")] = False


def distill(model: ModelArguments, arguments: DistillArguments) -> None:
    """Replay the human turns of a dataset through the target, for heads to learn its own words.

    Several processes share the work under `accelerate launch -m nfox.cli data distill ...`.
    """
    data, out = arguments.data, arguments.out
    if data is None or out is None:
        missing = "--data" if data is None else "--out"
        raise UsageError(f"{missing} is missing", "nfox data distill --data FILE --out own.jsonl")
    check(model, MethodArguments())
    share = own_share(model, arguments.gpus_per_process, loads=not arguments.url)
    from nfox.files import provenance
    from nfox.train.data.conversations import read
    from nfox.train.data.self_distillation import replay

    found = read(data, replies=False)
    whole, asked = found.describe(), _asked(model, arguments, provenance.digest(found.kept))
    found = replace(found, kept=found.kept[: arguments.limit])
    provenance.check(out, asked, data)  # before a model is loaded
    answerer = _answerer(model, arguments)
    batch = max(arguments.batch, arguments.concurrency) if arguments.url else arguments.batch
    facts = {"command": command_line(arguments.api_key), "data": data, "read": whole}

    def work(on_done: OnDone) -> Replayed:
        return replay(found, answerer, out, batch=batch, share=share, on_done=on_done)

    done, total = gather(out, facts | asked, share, len(found.kept), work)
    _complain(done, total)


def _complain(done: Replayed, total: Counter[str] | None) -> None:
    """Say why questions were not answered; it is an error if none was, by any process."""
    if total and total["failed"] and not total["kept"] + total["cut"]:
        raise NfoxError(f"no conversation was answered; the last error: {done.reason}")
    if done.reason:
        print(f"the last one that was not answered: {done.reason}", file=sys.stderr)


def _asked(model: ModelArguments, arguments: DistillArguments, questions: str) -> dict[str, Any]:
    """Return all that the answers depend on, which must be the same to go on with a file."""
    remote = {"model": model.model} if arguments.url else {}
    return {
        "questions": questions,
        "url": arguments.url,
        "temperature": arguments.temperature,
        "max_new_tokens": arguments.max_new_tokens,
        **model_facts(model),
        **remote,
    }


def _answerer(model: ModelArguments, arguments: DistillArguments) -> Answerer:
    from nfox.train.data.api_client import Server
    from nfox.train.data.local_answers import Local

    if arguments.url:
        return Server(
            arguments.url,
            model.model or "default",
            arguments.max_new_tokens,
            arguments.temperature,
            arguments.concurrency,
            arguments.api_key,
        )
    engine = load_plain(split_over_gpus(model, arguments.gpus_per_process))
    return Local(engine.model, engine.template, arguments.max_new_tokens, arguments.temperature)
