"""`nfox bench`: every method and other programs against plain decoding, on the same prompts in the
same run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..load import check
from ..options.dataclass_options import grouped, option, refuse_stray_options
from ..options.groups import Accept, GenerationArguments, MethodArguments, ModelArguments
from ..output_files import check_folder, check_out, write_out
from .compare import baseline, compare
from .report import check_report, report, write_report

_WHO, _WHAT, _OUT = "Who", "Prompts and rounds", "Results"


@dataclass(frozen=True)
class BenchArguments:
    """Who is measured, and on what."""

    methods: Annotated[
        str, option(_WHO, "With options: none,spec,spec:gamma=4; all.", "--methods")
    ] = "all"
    peers: Annotated[
        str, option(_WHO, "Of hf, hf-assisted, hf-lookup, llama.cpp; all.", "--peers")
    ] = ""
    simulated: Annotated[
        str | None,
        option(
            _WHO, "0.6,0.8: guesses right at such a rate, on any model.", "--simulate-acceptance"
        ),
    ] = None
    simulated_gamma: Annotated[
        int | None, option(_WHO, "Tokens they draft in a step; 4.", "--simulate-gamma", min=1)
    ] = None
    accept: Annotated[Accept, option(_WHO, "The acceptance rule.", "--accept")] = "exact"
    prompts: Annotated[
        str, option(_WHAT, "demo, gsm8k, mt-bench, ..., files, NAME=FILE.", "--prompts")
    ] = "demo"
    limit: Annotated[int | None, option(_WHAT, "Of each set at most.", "--limit", min=1)] = None
    turns: Annotated[int | None, option(_WHAT, "Of a conversation at most.", "--turns", min=1)] = (
        None
    )
    schemas: Annotated[
        Path | None, option(_WHAT, "Spider's tables.json or its databases.", "--schemas")
    ] = None
    sweep: Annotated[
        list[str],
        option(_WHAT, "gamma=1,2,4; temperature=0,1; context=128,limit.", "--sweep", envvar=None),
    ] = field(default_factory=list)
    rounds: Annotated[int, option(_WHAT, "Of all prompts with all methods.", "--rounds", min=1)] = 2
    warmup: Annotated[int, option(_WHAT, "Prompts that do not count.", "--warmup", min=0)] = 2


@dataclass(frozen=True)
class ResultArguments:
    """Where the results go."""

    out: Annotated[
        Path | None,
        option(_OUT, "Everything, as JSON; interrupted runs go on.", "--json", envvar=None),
    ] = None
    html: Annotated[Path | None, option(_OUT, "A page of it.", "--html", envvar=None)] = None
    plots: Annotated[
        Path | None, option(_OUT, "Folder for plots, PNG and SVG.", "--plots", envvar=None)
    ] = None
    answers: Annotated[
        Path | None,
        option(_OUT, "Folder for answers, as FastChat's judge reads.", "--answers", envvar=None),
    ] = None
    profile: Annotated[
        Path | None,
        option(_OUT, "Folder for torch's profiler traces.", "--profile", envvar=None),
    ] = None
    explain: Annotated[
        bool, option(_OUT, "Say what every figure means, and stop.", "--explain", envvar=None)
    ] = False
    debug: Annotated[bool, option(_OUT, "Show tracebacks.", "--debug")] = False


def bench(
    context: typer.Context,
    arguments: BenchArguments,
    results: ResultArguments,
    model: ModelArguments,
    generation: GenerationArguments,
) -> None:
    """Measure methods against plain decoding: in turn, on the same prompts, with exactness."""
    if context.invoked_subcommand is not None:
        refuse_stray_options(context)
        return
    if results.explain:
        _explain()
        return
    check(model, MethodArguments())
    _check(results)
    from .run import run

    if not run(arguments, model, generation, results, partial(_finish, results)):
        raise KeyboardInterrupt


def _finish(results: ResultArguments, measured: dict[str, Any], *, complete: bool) -> None:
    """Show what was measured; keep it, if it is all that was to be measured."""
    from .run import trials_file
    from .table import print_table

    if complete and results.out is not None:  # first: nobody may read the table to its end
        write_out(results.out, json.dumps(measured, indent=1) + "\n", "its trials are kept")
        trials_file(results.out).unlink(missing_ok=True)
    print_table(measured)
    if complete:
        write_report(measured, results.html, results.plots)


def _check(results: ResultArguments) -> None:
    """Find what keeps results from being written, before there are any."""
    check_out(results.out)
    check_report(results.html, results.plots)
    check_folder(results.answers, "answers")
    check_folder(results.profile, "profiles")


def _explain() -> None:
    from nfox.eval.bench.metrics import EXPLAIN, PEERS, SHOWN, SIMULATED

    width = max(map(len, EXPLAIN))
    for name, meaning in (EXPLAIN | SIMULATED).items():
        shown = f" [{SHOWN[name]}]" if name in SHOWN else ""
        print(f"{name.ljust(width)}  {meaning}{shown}")
    print(f"\n{PEERS}")


def register(app: typer.Typer) -> None:
    """Add the command, and what is done with its results."""
    group = typer.Typer(invoke_without_command=True, pretty_exceptions_enable=False)
    group.callback()(grouped(bench))
    for command in (compare, report, baseline):
        group.command()(grouped(command))
    app.add_typer(group, name="bench")
