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

import typer

from nfox.counting import counted
from nfox.errors import UsageError

from ..engine_arguments import EngineArguments
from ..known_models import usual_model
from ..options.dataclass_options import option
from ..options.engine import ModelArguments
from ..output_files import check_out, write_out
from ..printing import tell
from .answering import Answering, Line, report, required

if TYPE_CHECKING:
    from nfox.engine import Engine


@dataclass(frozen=True)
class HarnessArguments:
    """What is asked, and where the answers go."""

    data: Annotated[str | None, option("Data", "The published file.", "--data")] = None
    limit: Annotated[int | None, option("Data", "Tasks at most.", "--limit", min=1)] = None
    out: Annotated[
        Path | None,
        option("Data", "For the evaluation program; written when all is answered.", "--out"),
    ] = None


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
    context: typer.Context,
    engine_arguments: EngineArguments,
    arguments: HarnessArguments,
    how: HumanEvalArguments,
) -> None:
    """Write functions for HumanEval: samples.jsonl for evaluate_functional_correctness."""
    usage = "nfox eval humaneval --data HumanEval.jsonl --out samples.jsonl"
    data, out = _data_and_out(arguments, usage)
    engine_arguments = replace(engine_arguments, model=usual_model(engine_arguments.model))
    engine_arguments.check()
    if not how.instruct:
        model = _without_template(engine_arguments.model)
        engine_arguments = replace(engine_arguments, model=model)
    from nfox.batch import BatchPrompt
    from nfox.eval.answers.extract import FUNCTION_ENDS, whole_function
    from nfox.text.messages import Message

    problems = _tasks(data, "a problem of HumanEval", {"task_id", "prompt", "entry_point"})
    tasks = {str(task["task_id"]): task for task in problems}
    prompts = [
        BatchPrompt(name, place, (), (task["prompt"],))
        if how.instruct
        else BatchPrompt(name, place, (Message("assistant", task["prompt"]),), ())
        for place, (name, task) in enumerate(tasks.items())
    ]

    def completion(line: Line) -> str:
        entry = str(tasks[line["id"]]["entry_point"])
        return whole_function(line["text"], entry) if how.instruct else line["text"]

    answering = Answering(context, engine_arguments, () if how.instruct else FUNCTION_ENDS)
    lines = answering.lines_of(_replies(out), prompts, data, arguments.limit, instruct=how.instruct)
    samples = [{"task_id": line["id"], "completion": completion(line)} for line in lines]
    _write(out, "".join(json.dumps(sample) + "\n" for sample in samples))
    _report_written("humaneval", lines, "function", out)


def _without_template(model: ModelArguments) -> ModelArguments:
    """Return the options that load a model to continue texts, as base models do.

    Raises:
        UsageError: if a template was asked for, which would not be used.
    """
    if model.conv_template not in (None, "plain"):
        raise UsageError(
            f"the template {model.conv_template} is of a chat, but the text is to be continued",
            "add --instruct to ask in the chat, or leave the template out",
        )
    return replace(model, conv_template="plain")


def spider(
    context: typer.Context,
    engine_arguments: EngineArguments,
    arguments: HarnessArguments,
    more: SpiderArguments,
) -> None:
    """Write SQL for Spider: one line for each question, for --pred of evaluation.py.

    Its --gold has lines of SQL, a tab and the database; as many as there are questions.
    """
    usage = "nfox eval spider --data dev.json --tables tables.json --out predicted.sql"
    data, out = _data_and_out(arguments, usage)
    tables = required(more.tables, "--tables", usage)
    if not tables.expanduser().exists():
        raise UsageError(f"--tables {tables}: no such file or folder", "check the path")
    engine_arguments = replace(engine_arguments, model=usual_model(engine_arguments.model))
    engine_arguments.check()
    from nfox.batch import BatchPrompt
    from nfox.eval.answers.extract import sql_line
    from nfox.train.data.tasks import DatabaseSchemas, task_question

    databases = DatabaseSchemas(tables)
    prompts = [
        BatchPrompt(str(place), place, (), (str(task_question(task, databases)),))
        for place, task in enumerate(_tasks(data, "a question of Spider", {"db_id", "question"}))
    ]
    answering = Answering(context, engine_arguments, on_load=_hint_at_sql)
    lines = answering.lines_of(_replies(out), prompts, data, arguments.limit)
    _write(out, "".join(sql_line(line["text"]) + "\n" for line in lines))
    _report_written("spider", lines, "answer", out)


def _report_written(name: str, lines: list[Line], noun: str, out: Path) -> None:
    report(name, lines, f"{counted(len(lines), noun)} written to {shlex.quote(str(out))}")


def _hint_at_sql(engine: Engine) -> None:
    """Print a warning if the template does not ask for SQL: the prompt alone does not."""
    from nfox.text.messages import Message

    if "sql" not in engine.template.text([Message("user", "")]).lower():
        tell(
            f"nfox: the template {engine.template.name} asks for no SQL, only the question is "
            "there; --cllm-type spider does, or --system TEXT"
        )


def _data_and_out(arguments: HarnessArguments, usage: str) -> tuple[str, Path]:
    """Return where tasks come from and where answers go.

    Raises:
        UsageError: if either is missing, or answers cannot be written there.
    """
    data = required(arguments.data, "--data", usage)
    out: Path = required(arguments.out, "--out", usage)
    check_out(out, "answers")
    return data, out


def _write(out: Path, text: str) -> None:
    write_out(out, text, f"all answers are in {_replies(out)}: the same command goes on there")


def _replies(out: Path) -> Path:
    """Return the file that answers are added to as they come, with their times."""
    return out.with_name(f"{out.name}.replies.jsonl")


def _tasks(data: str, kind: str, expected: set[str]) -> list[Mapping[str, Any]]:
    """Read all tasks: the evaluation program expects an answer for each, in their order.

    Args:
        data: a file, or a dataset on the hub.
        kind: what a record is, for errors.
        expected: the keys that a record has.

    Raises:
        UsageError: if a record is of another kind, or if there is none.
    """
    from nfox.files.records import read_records

    tasks = list(read_records(data))
    layout = f"expected {{{', '.join(sorted(expected))}}}"
    for place, task in enumerate(tasks, 1):
        texts = task if isinstance(task, Mapping) else {}
        if not all(isinstance(texts.get(key), str) for key in expected):
            raise UsageError(f"{data}, record {place}: not {kind}", layout)
    if not tasks:
        raise UsageError(f"{data} is empty: {kind} is required", layout)
    return tasks
