"""What comes out of a benchmark: its result, tables, page, plots, answers and profiles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfox.demo import NAME
from nfox.eval.bench.journal import trials_file
from nfox.eval.bench.summary import summarise
from nfox.text.stream import decode_text

from ..display.header import answering_name
from ..facts import command_line
from ..output_files import make_folder, write_out
from ..printing import tell
from .answers import write_answers
from .arguments import ResultArguments
from .report import write_report
from .table import print_table

if TYPE_CHECKING:
    from nfox.eval.bench.result import BenchResult
    from nfox.eval.bench.trials import Bench, Trial


def result_of(bench: Bench, trials: Sequence[Trial], settings: dict[str, Any]) -> BenchResult:
    """Return the result of a benchmark.

    Args:
        bench: that ran the trials.
        trials: of all entrants.
        settings: all that was asked for, by the names of the options.
    """
    target = answering_name(bench.engine)
    return summarise(
        bench, trials, settings, model=_short_name(settings), target=target, command=command_line()
    )


def _short_name(settings: dict[str, Any]) -> str:
    """Return the name of the model without the folders around it."""
    return Path(settings["model"] or NAME).name


def show(result: BenchResult, results: ResultArguments, *, complete: bool) -> None:
    """Print the tables of a result; write it, its page and its plots if it is complete.

    Args:
        result: of the trials that there are.
        results: where everything goes.
        complete: whether these are all that were asked for.

    Raises:
        NfoxError: if something cannot be written, as on a full disk.
    """
    if complete and results.out is not None:  # first: nobody may read the table to its end
        write_out(results.out, result.json_text(), "its trials are kept")
        trials_file(results.out).unlink(missing_ok=True)
    print_table(result)
    if complete:
        write_report(result, results.html, results.plots)


def write_more(
    bench: Bench, trials: Sequence[Trial], settings: dict[str, Any], results: ResultArguments
) -> None:
    """Write answers and profiles, which take more than the result.

    Args:
        bench: that ran the trials.
        trials: of all entrants.
        settings: all that was asked for, by the names of the options.
        results: where everything goes.

    Raises:
        NfoxError: if they cannot be written, as on a full disk.
    """
    if results.answers is not None:
        peers = {entrant.name for entrant in bench.entrants if entrant.kind == "peer"}
        tokenizer = bench.engine.model.tokenizer

        def decode(ids: Sequence[int]) -> str:
            return decode_text(tokenizer, ids).strip()

        files = write_answers(
            results.answers, trials, bench.tasks, decode, _short_name(settings), peers
        )
        tell(f"answers of {len(files)} written to {results.answers}")
    if results.profile is not None:
        from nfox.eval.bench.profiles import write

        make_folder(results.profile)
        files = write(bench, results.profile)
        tell(f"profiles of {len(files)} written to {results.profile}")
