"""Answers in a file, to which one process or several add what is missing, also after a kill."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfox.batch import AnswerCounter, sort_answers
from nfox.counting import counted
from nfox.decoding import clock
from nfox.errors import NfoxError
from nfox.files import provenance
from nfox.files.atomic import reporting_full_disk
from nfox.files.jsonl import append_lines

from ..display.progress import progress_bar
from ..engine_arguments import EngineArguments
from ..facts import command_line, model_facts
from ..printing import tell
from ..suspension import suspendable
from .answering import answer_all

if TYPE_CHECKING:
    from nfox.batch import BatchPrompt
    from nfox.engine import Engine
    from nfox.files.jsonl import WorkShare


def depends_on(arguments: EngineArguments) -> dict[str, Any]:
    """Return the options on which the answers depend; others cannot add to the same file."""
    method = arguments.method
    drafting = asdict(method)
    if method.accept == "exact":  # then no method changes the text
        drafting = {"accept": method.accept}
    return {**model_facts(arguments.model), **drafting, **asdict(arguments.generation)}


def add_answers(
    out: Path,
    prompts: Sequence[BatchPrompt],
    share: WorkShare,
    load: Callable[[], Engine],
    options: dict[str, Any],
) -> list[int]:
    """Answer this process's share of the prompts that a file has no answer to, and add the answers.

    The first process waits until the others are done too, and puts the file in order.

    Args:
        out: the file of answers.
        prompts: the prompts of all processes.
        share: which of them this process answers.
        load: loads the engine; it is not called where there is nothing to answer.
        options: what the answers depend on.

    Returns:
        The exit codes of all prompts that were refused; none in all processes but the first.
    """
    if provenance.provenance_file(out).is_file():
        provenance.check(out, options, "the prompts")
    answers = AnswerCounter(out, prompts)
    before = len(prompts) - len(answers.missing)
    _answer_share(out, prompts, share, load, options, answers)
    if share.rank > 0:
        return []
    if before == len(prompts):
        tell("nfox: all prompts are answered already")
        return answers.refused
    processes = f", by {share.size} processes" if share.size > 1 else ""
    tell(
        f"nfox: {counted(len(prompts), 'prompt')}, {before} of them answered before, "
        f"{len(answers.refused)} refused{processes}; {out}"
    )
    return answers.refused


def _answer_share(
    out: Path,
    prompts: Sequence[BatchPrompt],
    share: WorkShare,
    load: Callable[[], Engine],
    options: dict[str, Any],
    answers: AnswerCounter,
) -> None:
    """Add the missing answers of this process; in the first one, wait for those of the others."""
    first, begin = share.rank == 0, clock.now()
    todo = [prompts[n] for n in share.of(len(prompts)) if prompts[n].id in answers.missing]
    engine = load() if todo else None
    show = first and bool(answers.missing)
    with (
        suspendable(),
        reporting_full_disk(out, "what was written is whole", "free some space; the same goes on"),
        progress_bar("prompts", len(answers.missing), wanted=show) as on_done,
    ):
        provenance.begin(out, {"command": command_line(), **options}, share)
        if engine is not None:
            _answer_missing(engine, todo, out, answers, on_done)
        provenance.finish(out, share, {"prompts": len(todo)}, clock.now() - begin)
        if first:
            _wait_for_others(answers, on_done)
            sort_answers(out, prompts)


def _answer_missing(
    engine: Engine,
    todo: Sequence[BatchPrompt],
    out: Path,
    answers: AnswerCounter,
    on_done: Callable[[int], None],
) -> None:
    """Answer prompts, but for those that another run answers meanwhile."""

    def add_line(line: str) -> None:
        prompt_id = str(json.loads(line)["id"])

        def is_missing() -> bool:
            _count_new(answers, on_done)
            return prompt_id in answers.missing

        append_lines(out, line, is_missing)

    missing = (prompt for prompt in todo if prompt.id in answers.missing)
    answer_all(engine, missing, add_line, on_done=partial(_count_new, answers, on_done))


def _count_new(answers: AnswerCounter, on_done: Callable[[int], None]) -> int:
    """Report and return how many prompts have been answered since the last call, by any process."""
    count = answers.update()
    on_done(count)
    return count


def _wait_for_others(answers: AnswerCounter, on_done: Callable[[int], None]) -> None:
    """Wait until other processes have answered all prompts.

    Raises:
        NfoxError: if none has come for long: a launcher ends all processes where one fails, but
            these may have been started without one, and one may hang.
    """
    last_answer = clock.now()
    while answers.missing:
        time.sleep(_PAUSE)
        if _count_new(answers, on_done):
            last_answer = clock.now()
        elif clock.now() - last_answer > _PATIENCE:
            raise NfoxError(
                f"{counted(len(answers.missing), 'prompt')} of other processes without an answer, "
                f"and for {_PATIENCE // 60} minutes none has come",
                "see what became of them; the same command goes on",
            )


_PAUSE, _PATIENCE = 0.2, 3600  # seconds
