"""`nfox eval mt-bench`: a model behind an OpenAI-compatible server judges answers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from nfox.errors import NfoxError, UsageError

from ..display.progress import bar
from ..options.dataclass_options import option
from ..output_files import check_out
from .answering import needed

if TYPE_CHECKING:
    from nfox.eval.answers.files import AnswerFile
    from nfox.eval.answers.mt_bench import Match, Question
    from nfox.train.data.api_client import Server

_USAGE = (
    "nfox eval mt-bench --answers FILE --judge-url http://HOST/v1/chat/completions "
    "--judge-model NAME --out judgments.jsonl"
)
_PIPE = 140  # columns where nobody says how many there are


@dataclass(frozen=True)
class MtBenchArguments:
    """What is judged, by whom, and where the judgments go."""

    answers: Annotated[
        list[Path],
        option("Data", "Of nfox bench --answers, or published ones.", "--answers", envvar=None),
    ] = field(default_factory=list)
    data: Annotated[str, option("Data", "The questions: FastChat's question.jsonl.", "--data")] = (
        "mt-bench"
    )
    references: Annotated[
        Path | None,
        option("Data", "FastChat's reference_answer/gpt-4.jsonl.", "--references"),
    ] = None
    out: Annotated[
        Path | None,
        option("Data", "Where judgments are added; what is there is not asked again.", "--out"),
    ] = None
    judge_url: Annotated[
        str | None,
        option("Judge", "Chat completions of an OpenAI-compatible server.", "--judge-url"),
    ] = None
    judge_model: Annotated[str | None, option("Judge", "Its name there.", "--judge-model")] = None
    api_key: Annotated[str | None, option("Judge", "For its authorization.", "--api-key")] = None
    mode: Annotated[
        Literal["single", "pairwise"],
        option("Judge", "Rate each answer, or compare every two models.", "--mode", envvar=None),
    ] = "single"
    judge_prompts: Annotated[
        Path | None,
        option("Judge", "FastChat's judge_prompts.jsonl; else nfox's own.", "--judge-prompts"),
    ] = None
    concurrency: Annotated[int, option("Judge", "Requests at once.", "--concurrency", min=1)] = 8
    max_new_tokens: Annotated[
        int, option("Judge", "Of a judgment.", "--max-new-tokens", min=16, envvar=None)
    ] = 2048
    debug: Annotated[bool, option("Data", "Show tracebacks.", "--debug")] = False


def mt_bench(arguments: MtBenchArguments) -> None:
    """Have a model judge answers, as MT-bench does; it makes none.

    `nfox bench --prompts mt-bench --answers FOLDER` has a model answer, with every method.
    """
    out: Path = needed(arguments.out, "--out", _USAGE)
    name: str = needed(arguments.judge_model, "--judge-model", _USAGE)
    needed(arguments.judge_url, "--judge-url", _USAGE)
    check_out(out, "judgments")
    files = _files(arguments)
    from nfox.eval.answers import files as answers
    from nfox.eval.answers import judge, judge_prompts, mt_bench

    mode, given = arguments.mode, arguments.judge_prompts
    prompts = judge_prompts.read(given, mode) if given else judge_prompts.own()
    references = answers.read(arguments.references) if arguments.references else None
    asked = mt_bench.questions(arguments.data, references)
    matches = mt_bench.matches(asked, files, prompts, mode)
    if not matches:
        raise UsageError("there is nothing to judge", "name answers of at least one reply")
    _tell(files, asked, matches)
    todo = judge.remaining(matches, judge.kept(out, mode), name, out)
    reasons = _judge(todo, arguments, _server(arguments), out)
    lines = judge.kept(out, mode)
    if not lines:
        raise NfoxError(f"nothing was judged; the last reason: {reasons[-1]}")
    if mode == "single":
        _print_scores(judge.scores(lines, {key: one.category for key, one in asked.items()}))
    else:
        _print_wins(judge.wins(lines))
    own = "by nfox's own prompts: not comparable with published scores (see --judge-prompts)"
    by = f"by the prompts of {given}" if given else own
    print(f"\n{len(lines)} judgments of {name}, {by}; {out}")
    if reasons:
        print(f"{len(reasons)} were not made, ask again; the last reason: {reasons[-1]}")


def _files(arguments: MtBenchArguments) -> list[AnswerFile]:
    """Read the answers.

    Raises:
        UsageError: if there are too few, or two of one name.
    """
    least = 2 if arguments.mode == "pairwise" else 1
    if len(arguments.answers) < least:
        missing = "a second --answers is missing" if arguments.answers else "--answers is missing"
        raise UsageError(missing, _USAGE)
    from nfox.eval.answers.files import read

    files = [read(path) for path in arguments.answers]
    named = [file.model for file in files]
    if twice := next((name for name in named if named.count(name) > 1), None):
        raise UsageError(
            f"two files of answers are named {twice}, which is how judgments tell them apart",
            "rename one of them",
        )
    return files


def _server(arguments: MtBenchArguments) -> Server:
    from nfox.train.data.api_client import Server

    return Server(
        arguments.judge_url or "",
        arguments.judge_model or "",
        arguments.max_new_tokens,
        concurrency=arguments.concurrency,
        key=arguments.api_key,
        options=("--judge-url", "--judge-model"),
    )


def _tell(
    files: Sequence[AnswerFile], asked: dict[str, Question], matches: Sequence[Match]
) -> None:
    """Say what is not as MT-bench has it."""
    from nfox.eval.answers.mt_bench import REFERENCED, guided

    for file in files:
        if missing := len(asked.keys() - file.answers.keys()):
            said = f"{missing} of {len(asked)} questions have no answer"
            print(f"nfox: {file.path}: {said}", file=sys.stderr)
    wanted = [match for match in matches if match.question.category in REFERENCED]
    lacking = sum(not guided(match.question, match.turn) for match in wanted)
    if lacking:
        said = f"{lacking} of {len(wanted)} judgments of maths, reasoning and coding"
        print(f"nfox: {said} are made without a reference (--references)", file=sys.stderr)


def _judge(
    todo: Sequence[Match], arguments: MtBenchArguments, server: Server, out: Path
) -> list[str]:
    """Ask what was not asked yet; return why some of it has no answer."""
    from nfox.eval.answers.judge import judge
    from nfox.train.checkpoints import full_disk_said

    with (
        full_disk_said(out, "what was written is whole", "free some space; the same goes on"),
        bar("judgments", len(todo)) as tell,
    ):
        return judge(todo, server, server.model, out, arguments.concurrency, tell)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _print_scores(rows: Sequence[dict[str, Any]]) -> None:
    def cell(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    cells = [
        [row["model"], *(cell(row[name]) for name in ("score", "first", "second")),
         str(row["unrated"])]
        for row in rows
    ]  # fmt: skip
    _table(["", "score", "turn 1", "turn 2", "no rating"], cells)
    if kinds := list(rows[0]["categories"]):
        print()
        by_kind = [[row["model"], *map(cell, row["categories"].values())] for row in rows]
        _table(["", *kinds], by_kind)


def _print_wins(rows: Sequence[dict[str, Any]]) -> None:
    def share(value: float | None) -> str:
        return "" if value is None else f"{value:.1%}"

    names = ("wins", "losses", "ties")
    cells = [
        [row["model"], *(str(row[name]) for name in names), share(row["win_rate"]),
         share(row["adjusted"]), str(row["unclear"])]
        for row in rows
    ]  # fmt: skip
    _table(["", *names, "win rate", "with half of ties", "no verdict"], cells)
