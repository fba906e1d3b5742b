"""Answers that are added to a file, by one process or by several, also after a kill."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfox.batch import Answered, put_in_order
from nfox.errors import NfoxError
from nfox.files import provenance
from nfox.files.atomic import reporting_full_disk
from nfox.files.jsonl import append

from ..display.progress import bar
from ..facts import command_line, model_facts
from ..options.groups import GenerationArguments, MethodArguments, ModelArguments
from .answering import answer_all

if TYPE_CHECKING:
    from nfox.batch import Prompt
    from nfox.engine import Engine
    from nfox.files.jsonl import Share


def depends_on(
    model: ModelArguments, method: MethodArguments, generation: GenerationArguments
) -> dict[str, Any]:
    """Return all that the answers depend on, which must be the same to go on with a file."""
    drafts = asdict(method)
    if method.accept == "exact":  # then no method changes the text
        drafts = {name: drafts[name] for name in ("accept",)}
    return {**model_facts(model), **drafts, **asdict(generation)}


def add(
    out: Path,
    prompts: Sequence[Prompt],
    share: Share,
    load: Callable[[], Engine],
    asked: dict[str, Any],
) -> int:
    """Answer this process's prompts that a file has no answers to, and add these to it. The first
    process stays until the others have done so too, and puts all in order.

    Returns:
        How many prompts were refused, as far as this process is to tell.
    """
    if provenance.beside(out).is_file():
        provenance.check(out, asked, "the prompts")
    answered, first, begin = Answered(out, prompts), share.rank == 0, time.time()
    own = [prompts[number] for number in share.of(len(prompts))]
    before = len(prompts) - len(answered.missing)
    todo = [prompt for prompt in own if prompt.id in answered.missing]
    if first and not answered.missing:
        print("nfox: all prompts are answered already", file=sys.stderr)
    engine = load() if todo else None
    with (
        reporting_full_disk(out, "what was written is whole", "free some space; the same goes on"),
        bar("prompts", len(answered.missing), wanted=first and bool(answered.missing)) as on_done,
    ):
        provenance.begin(out, {"command": command_line(), **asked}, share)
        if engine is not None:
            _answer_own(engine, todo, out, answered, on_done)
        provenance.finish(out, share, {"prompts": len(todo)}, time.time() - begin)
        if not first:
            return 0
        _wait(answered, on_done)
        put_in_order(out, prompts)
    if before < len(prompts):
        whole = f"{len(prompts)} prompts, {before} of them answered before"
        shared = f", by {share.size} processes" if share.size > 1 else ""
        print(f"nfox: {whole}, {answered.refused} refused{shared}; {out}", file=sys.stderr)
    return answered.refused


def _answer_own(
    engine: Engine,
    todo: Sequence[Prompt],
    out: Path,
    answered: Answered,
    on_done: Callable[[int], None],
) -> None:
    """Answer prompts, but for those that another run answers meanwhile."""

    def keep(line: str) -> None:
        name = str(json.loads(line)["id"])

        def missing() -> bool:
            _look(answered, on_done)
            return name in answered.missing

        append(out, line, missing)

    left = (prompt for prompt in todo if prompt.id in answered.missing)
    answer_all(engine, left, keep, on_done=partial(_look, answered, on_done))


def _look(answered: Answered, on_done: Callable[[int], None]) -> int:
    """Tell how many more prompts have been answered since, by any process."""
    more = answered.look()
    on_done(more)
    return more


def _wait(answered: Answered, on_done: Callable[[int], None]) -> None:
    """Wait for the answers of other processes.

    Raises:
        NfoxError: if none has come for long: a launcher ends all processes where one fails, but
            these may have been started without one, and one may hang.
    """
    last = time.monotonic()
    while answered.missing:
        time.sleep(_PAUSE)
        if _look(answered, on_done):
            last = time.monotonic()
        elif time.monotonic() - last > _PATIENCE:
            raise NfoxError(
                f"{len(answered.missing)} prompts of other processes have no answer yet, and for "
                f"{_PATIENCE // 60} minutes none has come",
                "see what became of them; the same command goes on",
            )


_PAUSE, _PATIENCE = 0.2, 3600  # seconds
