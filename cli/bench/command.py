"""`nfox bench`: every method and other programs against plain decoding, on the same prompts in the
same run.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import typer

from ..load import check
from ..options.dataclass_options import refuse_stray_options
from ..options.groups import GenerationArguments, MethodArguments, ModelArguments
from ..output_files import check_folder, check_out, write_out
from .arguments import BenchArguments, ResultArguments
from .report import check_report, write_report

if TYPE_CHECKING:
    from nfox.eval.bench.result import BenchResult


_SHOWN = {
    "tokens_per_second": "tok/s",
    "ttft_ms": "TTFT",
    "efficiency": "eff.",
    "wide": "t(N)/t(1)",
    "drafting": "d",
    "overhead": "loop",
}
"""What the table at the terminal calls figures with long names."""


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


def _finish(results: ResultArguments, measured: BenchResult, *, complete: bool) -> None:
    """Show what was measured; keep it, if it is all that was to be measured."""
    from nfox.eval.bench.journal import trials_file

    from .table import print_table

    if complete and results.out is not None:  # first: nobody may read the table to its end
        write_out(results.out, measured.json_text(), "its trials are kept")
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
    from nfox.eval.bench.figures import EXPLAIN, PEERS, SIMULATED

    width = max(map(len, EXPLAIN))
    for name, meaning in (EXPLAIN | SIMULATED).items():
        shown = f" [{_SHOWN[name]}]" if name in _SHOWN else ""
        print(f"{name.ljust(width)}  {meaning}{shown}")
    print(f"\n{PEERS}")
