"""`nfox data distill`: a dataset's questions, answered by the target itself."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nfox.drafters import method, names
from nfox.errors import UsageError

from .grouped import grouped, option
from .loading import check, load_chat
from .options import GenerationArguments, MethodArguments, ModelArguments
from .progress import loading_display

if TYPE_CHECKING:
    from nfox.train.replay import Answerer, Share


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
        int, option("Data", "GPUs that one process splits the model over.", "--gpus-per-process")
    ] = 1
    debug: Annotated[bool, option("Data", "Show tracebacks.", "--debug")] = False


def distill(model: ModelArguments, arguments: DistillArguments) -> None:
    """Replay the human turns of a dataset through the target, for heads to learn its own words.

    Several processes share the work under `accelerate launch -m nfox.cli data distill ...`.
    """
    if arguments.data is None or arguments.out is None:
        missing = "--data" if arguments.data is None else "--out"
        raise UsageError(f"{missing} is missing", "nfox data distill --data FILE --out own.jsonl")
    check(model, MethodArguments())
    share = _share(arguments.gpus_per_process)
    from nfox.train.data import read
    from nfox.train.replay import note, replay

    found = read(arguments.data)
    whole = found.describe()
    found = replace(found, kept=found.kept[: arguments.limit])
    begin = time.time()
    answerer = _answerer(model, arguments)
    batch = max(arguments.batch, arguments.concurrency) if arguments.url else arguments.batch
    with _bar(len(found.kept) // share.size) as on_done:
        counts = replay(found, answerer, arguments.out, batch=batch, share=share, on_done=on_done)
    if share.rank == 0:
        facts = {
            "command": shlex.join(["nfox", *sys.argv[1:]]),
            "data": arguments.data,
            "read": whole,
            "model": model.model or "embedded",
            "url": arguments.url,
            "temperature": arguments.temperature,
            "max_new_tokens": arguments.max_new_tokens,
            "counts": dict(counts),
            "seconds": round(time.time() - begin),
        }
        note(arguments.out, facts)
    said = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()) if count)
    print(f"{whole}; {said}; {arguments.out}", file=sys.stderr)


def _share(gpus: int) -> Share:
    """Find out which process this is, and keep to its own GPUs: before torch looks for them."""
    local = os.environ.get("LOCAL_RANK")
    if local is not None:
        first = int(local) * gpus
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        seen = given.split(",") if given else [str(n) for n in range(first + gpus)]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(seen[first : first + gpus])
    from nfox.train.replay import Share

    return Share(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))


def _answerer(model: ModelArguments, arguments: DistillArguments) -> Answerer:
    from nfox.train.replay import Local, Server

    if arguments.url:
        return Server(
            arguments.url,
            model.model or "default",
            arguments.max_new_tokens,
            arguments.temperature,
            arguments.concurrency,
            arguments.api_key,
        )
    split = arguments.gpus_per_process > 1 and model.device_map is None
    chosen = replace(model, device_map="auto") if split else model
    plain = MethodArguments(next(name for name in names() if not method(name).drafts))
    with loading_display(sys.stderr.isatty()) as told:
        chat = load_chat(chosen, plain, GenerationArguments(), told=told)
    return Local(chat.model, chat.template, arguments.max_new_tokens, arguments.temperature)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """Show how many conversations are finished, on a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("conversations", total=total)
        yield lambda count: progress.advance(task, count)


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    group = typer.Typer(
        help="Prepare data to train on.", no_args_is_help=True, pretty_exceptions_enable=False
    )
    group.command("distill")(grouped(distill))
    app.add_typer(group, name="data")
