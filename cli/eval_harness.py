"""`nfox eval humaneval` and `nfox eval spider`: answers in the layout that the public evaluation
programs read. Those execute them, in a sandbox of their own; nothing here does.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from nfox.errors import UsageError

from .eval_answers import Answering, Line, needed, report
from .grouped import option
from .loading import check
from .options import GenerationArguments, MethodArguments, ModelArguments

if TYPE_CHECKING:
    from nfox.chat import Chat


@dataclass(frozen=True)
class HarnessArguments:
    """What is asked, and where the answers go."""

    data: Annotated[str | None, option("Data", "The published file.", "--data")] = None
    limit: Annotated[int | None, option("Data", "Tasks at most.", "--limit", min=1)] = None
    out: Annotated[
        Path | None,
        option("Data", "For the evaluation program; written when all is answered.", "--out"),
    ] = None
    debug: Annotated[bool, option("Data", "Show tracebacks.", "--debug")] = False


@dataclass(frozen=True)
class HumanEvalArguments:
    """How code is asked for."""

    instruct: Annotated[
        bool, option("Data", "Ask in the chat, instead of continuing the text.", "--instruct")
    ] = False


@dataclass(frozen=True)
class SpiderArguments:
    """What else there is to know."""

    tables: Annotated[
        Path | None,
        option("Data", "Spider's tables.json or folder of databases.", "--tables", "--schemas"),
    ] = None


def humaneval(
    model: ModelArguments,
    method: MethodArguments,
    generation: GenerationArguments,
    arguments: HarnessArguments,
    how: HumanEvalArguments,
) -> None:
    """Write functions for HumanEval: samples.jsonl for evaluate_functional_correctness."""
    usage = "nfox eval humaneval --data HumanEval.jsonl --out samples.jsonl"
    data, out = _named(arguments, usage)
    check(model, method)
    from nfox.batch import Prompt
    from nfox.checkpoint import write_text
    from nfox.conversation import Message
    from nfox.quality import FUNCTION_ENDS, whole_function

    tasks = {str(task["task_id"]): task for task in _tasks(data)}
    prompts = [
        Prompt(name, place, (), (task["prompt"],))
        if how.instruct
        else Prompt(name, place, (Message("assistant", task["prompt"]),), ())
        for place, (name, task) in enumerate(tasks.items())
    ]

    def prepare(chat: Chat) -> None:
        from nfox.templates import resolve

        if not how.instruct:
            chat.set_template(resolve(chat.model.tokenizer, "plain"))
            stop = (*chat.settings.stop, *FUNCTION_ENDS)
            chat.settings = replace(chat.settings, stop=stop)

    def completion(line: Line) -> str:
        entry = str(tasks[line["id"]]["entry_point"])
        return whole_function(line["text"], entry) if how.instruct else line["text"]

    asking = Answering(model, method, generation, prepare)
    lines = asking.lines_of(_replies(out), prompts, data, arguments.limit, instruct=how.instruct)
    samples = [{"task_id": line["id"], "completion": completion(line)} for line in lines]
    write_text(out, "".join(json.dumps(sample) + "\n" for sample in samples))
    report("humaneval", lines, f"{len(samples)} functions written to {shlex.quote(str(out))}")


def spider(
    model: ModelArguments,
    method: MethodArguments,
    generation: GenerationArguments,
    arguments: HarnessArguments,
    more: SpiderArguments,
) -> None:
    """Write SQL for Spider: one line for each question, for --pred of evaluation.py.

    Its --gold has lines of SQL, a tab and the database; as many as there are questions.
    """
    usage = "nfox eval spider --data dev.json --tables tables.json --out predicted.sql"
    data, out = _named(arguments, usage)
    tables = needed(more.tables, "--tables", usage)
    check(model, method)
    from nfox.batch import Prompt
    from nfox.checkpoint import write_text
    from nfox.quality import sql_line
    from nfox.train.task_data import read

    found = read(data, tables, replies=False)
    if lost := found.skipped + found.cut:
        raise UsageError(
            f"{data}: {lost} records are no questions, so lines would not stand beside their gold",
            'expected [{"db_id", "question"}]',
        )
    prompts = [
        Prompt(str(place), place, (), (messages[-1].content,))
        for place, messages in enumerate(found.kept)
    ]
    asking = Answering(model, method, generation)
    lines = asking.lines_of(_replies(out), prompts, data, arguments.limit)
    write_text(out, "".join(sql_line(line["text"]) + "\n" for line in lines))
    report("spider", lines, f"{len(lines)} queries written to {shlex.quote(str(out))}")


def _named(arguments: HarnessArguments, usage: str) -> tuple[str, Path]:
    return needed(arguments.data, "--data", usage), needed(arguments.out, "--out", usage)


def _replies(out: Path) -> Path:
    """Return where answers are kept as they come, with their times."""
    return out.with_name(f"{out.name}.replies.jsonl")


def _tasks(data: str) -> list[Mapping[str, Any]]:
    """Read HumanEval's problems."""
    from nfox.train.data import records

    expected = {"task_id", "prompt", "entry_point"}
    tasks = list(records(data))
    for place, task in enumerate(tasks, 1):
        if not isinstance(task, Mapping) or not expected <= task.keys():
            raise UsageError(
                f"{data}, record {place}: not a problem of HumanEval",
                f"expected {{{', '.join(sorted(expected))}}}",
            )
    return tasks
