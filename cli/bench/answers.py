"""`nfox bench answers`: tau and speed of answer files, nfox's own and published ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nfox.errors import UsageError

from ..options.dataclass_options import option
from ..output_files import check_out, make_folder, write_out

if TYPE_CHECKING:
    from nfox.eval.answers.files import AnswerFile
    from nfox.eval.bench.runner import Task, Trial

SCHEMA = "nfox.answers/1"
_PIPE = 140  # columns where nobody says how many there are
_NOTE = (
    "tok/s: tokens / seconds over all questions, prefill included; mean tok/s and mean speed-up: "
    "per question and then the mean, as Spec-Bench"
)


@dataclass(frozen=True)
class AnswersArguments:
    """What is read, and where the result goes."""

    files: Annotated[
        list[Path],
        typer.Argument(
            help="JSON lines of nfox bench --answers, Medusa, CTC-drafter, EAGLE or Spec-Bench.",
            metavar="FILE...",
            show_default=False,
        ),
    ] = field(default_factory=list)
    baseline: Annotated[
        Path | None,
        option("Answers", "Answers of plain decoding.", "--baseline", envvar=None),
    ] = None
    out: Annotated[
        Path | None, option("Answers", "Where the JSON goes.", "--json", envvar=None)
    ] = None
    debug: Annotated[bool, option("Answers", "Show tracebacks.", "--debug")] = False


def answers(arguments: AnswersArguments) -> None:
    """Say tau and speed of answer files, and their speed-up over a baseline's."""
    if not arguments.files:
        raise UsageError(
            "no file of answers is named", "nfox bench answers FILE --baseline PLAIN_FILE"
        )
    check_out(arguments.out)
    from nfox.eval.answers.files import read
    from nfox.eval.answers.speed import EXPLAIN, rows

    base = read(arguments.baseline) if arguments.baseline else None
    found: list[dict[str, Any]] = []
    for path in arguments.files:
        file = read(path)
        own = rows(file, base)
        _warn(file, own[0], base)
        found += [{"file": str(path), **row} for row in own]
    _print(found)
    if arguments.out is not None:
        result = {
            "schema": SCHEMA,
            "baseline": str(arguments.baseline) if arguments.baseline else None,
            "definitions": EXPLAIN,
            "rows": found,
        }
        write_out(arguments.out, json.dumps(result, indent=1) + "\n")


def write_answers(
    folder: Path,
    trials: Sequence[Trial],
    tasks: Sequence[Task],
    decode: Callable[[Sequence[int]], str],
    model: str,
    peers: Collection[str] = (),
) -> list[Path]:
    """Write one file of answers for every entrant; return which.

    Args:
        folder: that `check_folder` had nothing against.
        trials: of all entrants.
        tasks: that they are of.
        decode: gives a reply's text.
        model: name or folder of the target.
        peers: entrants that are other programs.

    Raises:
        NfoxError: if they cannot be written, as on a full disk.
    """
    from nfox.eval.answers.files import write

    make_folder(folder)
    texts = write(trials, tasks, decode, Path(model).name, peers)
    for name, text in texts.items():
        write_out(folder / name, text)
    return [folder / name for name in texts]


def _warn(file: AnswerFile, row: dict[str, Any], base: AnswerFile | None) -> None:
    """Say what is odd about a file."""
    if file.failed:
        said = f'{file.failed} replies are "ERROR": their tokens and times are of replies before'
        print(f"nfox: {file.path}: {said}", file=sys.stderr)
    if base is not None and row["compared"] < max(len(file.answers), len(base.answers)):
        said = f"speed-ups are over the {row['compared']} questions that the baseline has as well"
        print(f"nfox: {file.path}: {said}", file=sys.stderr)


def _print(found: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    columns = ["answers", "category", "questions", "tau", "tok/s", "mean tok/s"]
    compared = "speedup" in found[0]
    if compared:
        columns += ["speed-up", "95 %", "mean speed-up"]
    for column in columns:
        words = column in ("answers", "category")
        table.add_column(column, justify="left" if words else "right", no_wrap=not words)
    for row in found:
        table.add_row(*map(Text, _cells(row, compared=compared)))
    console.print(table)
    console.print(Text(f"\n{_NOTE}", "dim"))


def _cells(row: dict[str, Any], *, compared: bool) -> list[str]:
    def number(name: str, digits: int = 2) -> str:
        return "" if row[name] is None else f"{row[name]:.{digits}f}"

    cells = [row["model"], row["category"], str(row["questions"]), number("tau")]
    cells += [number("tokens_per_second", 1), number("mean_tokens_per_second", 1)]
    if compared:
        low, high = number("speedup_low"), number("speedup_high")
        cells += [number("speedup"), f"{low}-{high}" if low else "", number("mean_speedup")]
    return cells
