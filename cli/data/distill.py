"""`nfox data distill`: the user's messages of a dataset, answered by the target itself."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nfox.errors import UsageError
from nfox.secrets import masked_url

from .. import unused
from ..engine_arguments import EngineArguments
from ..facts import command_line, model_facts
from ..options.dataclass_options import option
from ..options.engine import ModelArguments
from ..processes import own_share, split_over_gpus
from .gather import OnDone, gather, report_failures

if TYPE_CHECKING:
    from nfox.train.data.answerer import Answerer
    from nfox.train.data.self_distillation import DistillCounts


@dataclass(frozen=True)
class DistillArguments:
    """Options of `nfox data distill`: the dataset, the answerer, and the output file."""

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


def distill(context: typer.Context, model: ModelArguments, arguments: DistillArguments) -> None:
    """Replay the human turns of a dataset through the target, for heads to learn its own words.

    Several processes share the work under `accelerate launch -m nfox.cli data distill ...`.
    """
    data, out = arguments.data, arguments.out
    if data is None or out is None:
        missing = "--data" if data is None else "--out"
        raise UsageError(f"{missing} is missing", "nfox data distill --data FILE --out own.jsonl")
    EngineArguments(model).check()
    share = own_share(model, arguments.gpus_per_process, loads=not arguments.url)
    from nfox.files import provenance
    from nfox.text.messages import questions_digest
    from nfox.train.data.conversations import read_conversations
    from nfox.train.data.self_distillation import self_distill

    dataset = read_conversations(data, replies=False)
    digest = questions_digest(dataset.conversations)
    inputs = _answer_inputs(model, arguments, digest)
    limited = replace(dataset, conversations=dataset.conversations[: arguments.limit])
    provenance.check(out, inputs, data)  # before a model is loaded
    answerer, idle = _answerer(model, arguments)
    unused.report_typed(context, idle)
    batch = max(arguments.batch, arguments.concurrency) if arguments.url else arguments.batch
    facts = {
        "command": command_line(),
        "data": data,
        "read": dataset.describe(),
        **inputs,
    }

    def answer_share(on_done: OnDone) -> DistillCounts:
        return self_distill(limited, answerer, out, batch=batch, share=share, on_done=on_done)

    counts, total = gather(out, facts, share, len(limited.conversations), answer_share)
    report_failures(counts, total, "conversation was answered")


def _answer_inputs(
    model: ModelArguments, arguments: DistillArguments, questions: str
) -> dict[str, Any]:
    """Return everything that the answers depend on, which must be the same to resume a file.

    Args:
        model: the options of the model.
        arguments: the options of the command.
        questions: the digest of the questions.
    """
    remote = {"model": model.model} if arguments.url else {}
    return {
        "questions": questions,
        "url": arguments.url and masked_url(arguments.url),
        "temperature": arguments.temperature,
        "max_new_tokens": arguments.max_new_tokens,
        **model_facts(model),
        **remote,
    }


def _answerer(
    model: ModelArguments, arguments: DistillArguments
) -> tuple[Answerer, dict[str, str]]:
    """Return the answerer that the options name, a server or a model that is loaded here, and the
    options that change nothing for it, with the reasons.
    """
    from nfox.train.data.api_answerer import ApiAnswerer
    from nfox.train.data.local_answerer import LocalAnswerer

    length, temperature = arguments.max_new_tokens, arguments.temperature
    if arguments.url:
        name, at_once = model.model or "default", arguments.concurrency
        server = ApiAnswerer(arguments.url, name, length, temperature, at_once, arguments.api_key)
        of_model = {field.name for field in fields(ModelArguments)} - {"model"}
        return server, dict.fromkeys((*of_model, "gpus_per_process"), "the server answers")
    split = split_over_gpus(model, arguments.gpus_per_process)
    engine = EngineArguments.without_drafter(split).load()
    local = LocalAnswerer(engine.model, engine.template, length, temperature, engine.max_context)
    of_server = dict.fromkeys(("concurrency", "api_key"), "no --url names a server")
    return local, of_server | unused.without_drafter(engine)
