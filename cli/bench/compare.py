"""`nfox bench compare` and `nfox bench baseline`: what differs between results, and may not."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nfox.errors import NfoxError, UsageError

from ..errors import print_error
from ..options.dataclass_options import option
from ..output_files import check_out, write_out
from ..printing import say, tell

if TYPE_CHECKING:
    from nfox.eval.bench.compare import Change, Rankings
    from nfox.eval.bench.guard import GuardReport
    from nfox.eval.bench.result import BenchResult

_COMPARE, _BASELINE = "Comparison", "Baseline"


@dataclass(frozen=True)
class CompareArguments:
    """What is compared with what."""

    old: Annotated[Path, typer.Argument(metavar="OLD", help="JSON of nfox bench, or a baseline.")]
    new: Annotated[Path, typer.Argument(metavar="NEW", help="JSON of nfox bench.")]
    guard: Annotated[
        bool, option(_COMPARE, "Fail if a ratio of NEW is worse than noise allows.", "--guard")
    ] = False
    margin: Annotated[
        float | None,
        option(
            _COMPARE,
            "With --guard: by which share runs differ; 0.05 unless told.",
            "--margin",
            min=0,
            max=0.99,
        ),
    ] = None
    out: Annotated[Path | None, option(_COMPARE, "Where the JSON goes.", "--json", envvar=None)] = (
        None
    )


@dataclass(frozen=True)
class BaselineArguments:
    """What a baseline is made of."""

    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULT", help="JSON of nfox bench, of the same command."),
    ]
    out: Annotated[Path, option(_BASELINE, "The file to write.", "--out", envvar=None)]


def compare(arguments: CompareArguments) -> None:
    """Compare two results: what changed by more than noise, and whether methods rank alike.

    With --guard it fails (exit code 1) if a speed-up, tau, an efficiency or the loop's overhead
    is worse than noise allows, or if a method is missing.
    """
    from nfox.eval.bench.baseline import baseline
    from nfox.eval.bench.guard import guard
    from nfox.eval.bench.noise import MARGIN
    from nfox.eval.bench.result import Baseline, BenchResult, read

    if arguments.margin is not None and not arguments.guard:
        raise UsageError("--margin is of --guard", "add --guard, or leave it out")
    check_out(arguments.out, "comparison")
    old: BenchResult | Baseline = read(arguments.old, BenchResult, Baseline)
    new = read(arguments.new, BenchResult)
    if arguments.guard:
        base = old if isinstance(old, Baseline) else baseline([old])
        margin = MARGIN if arguments.margin is None else arguments.margin
        _guard(guard(base, new, margin), arguments.out)
    elif isinstance(old, Baseline):
        raise UsageError(f"{arguments.old} is a baseline", "add --guard")
    else:
        _compare(old, new, arguments.out)


def baseline(arguments: BaselineArguments) -> None:
    """Make a baseline for `nfox bench compare --guard`: the ratios of several results.

    Several runs of one command are better than one: what differs between them is noise.
    """
    from nfox.eval.bench import baseline
    from nfox.eval.bench.result import BenchResult, read

    check_out(arguments.out, "baseline")
    base = baseline.baseline([read(file, BenchResult) for file in arguments.results])
    write_out(arguments.out, base.json_text(), "nothing else was changed")
    say(f"{len(base.rows)} rows of {base.results} results are in {arguments.out}")


def _compare(old: BenchResult, new: BenchResult, out: Path | None) -> None:
    """Show what changed, and what is only in one of the results."""
    from nfox.eval.bench.compare import changes, machines_differ, rankings, settings_differ

    from .compare_table import print_changes, row_name

    notes = settings_differ(old, new)
    if machine := machines_differ(old.machine, new.machine):
        notes.append(f"machines differ: {'; '.join(machine)}; tok/s and MB are not compared")
    compared, ranked = changes(old, new), rankings(old, new)
    print_changes([change for change in compared if change.figures])
    say(*notes)
    for change in compared:
        if not change.figures:
            say(f"{change.verdict.replace('only', 'only in the')} result: {row_name(change)}")
    for first, second in ranked.contrary:
        say(f"ranked contrarily: {first} was faster than {second}, and is slower")
    say(_summary(compared, ranked))
    listed = [asdict(change) for change in compared]
    comparison = {"notes": notes, "changes": listed, "rankings": asdict(ranked)}
    _write(out, {"schema": "nfox.bench.compare/1", **comparison})


def _summary(compared: list[Change], ranked: Rankings) -> str:
    from nfox.eval.bench.noise import FEWEST

    both = [change for change in compared if change.figures]
    changed = sum(change.beyond_noise for change in both)
    unjudged = sum(change.verdict == "not judged" for change in both)
    why = f"fewer than {FEWEST} conversations, or not measured"
    unknown = f" ({unjudged} not judged: {why})" if unjudged else ""
    pairs = len(ranked.contrary)
    counted = {0: "no pair of methods is", 1: "1 pair of methods is"}
    return (
        f"{changed} of {len(both)} changed beyond noise{unknown}; "
        f"{counted.get(pairs, f'{pairs} pairs of methods are')} ranked contrarily "
        f"({ranked.alike} alike, {ranked.close} too close to tell)"
    )


def _guard(report: GuardReport, out: Path | None) -> None:
    """Show what was held against a baseline.

    Raises:
        NfoxError: if anything is worse, or missing.
    """
    from .compare_table import complaint, print_checks

    print_checks(report.checks)
    _write(out, {"schema": "nfox.bench.guard/1", **asdict(report)})
    tell(*(f"nfox: {note}" for note in report.notes))
    worse = [check for check in report.checks if check.worse]
    for check in worse:
        print_error(complaint(check))
    for name in report.missing:
        print_error(f"{name}: in the baseline, missing in the result")
    if worse or report.missing:
        raise NfoxError(
            f"{len(worse)} of {len(report.checks)} ratios are worse than noise allows, "
            f"{len(report.missing)} rows are missing",
            "if that is meant, make a new baseline: nfox bench baseline RESULT RESULT --out FILE",
        )
    say(f"none of {len(report.checks)} ratios is worse than noise allows")


def _write(out: Path | None, content: dict[str, Any]) -> None:
    if out is not None:
        write_out(out, json.dumps(content, indent=1) + "\n", "what was found stands above")
