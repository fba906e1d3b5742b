"""From the trials of a benchmark to its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from nfox.eval.bench.divergence import Divergence, divergences
from nfox.eval.bench.entrants import Entrant
from nfox.eval.bench.figures import DivergenceRow
from nfox.eval.bench.machine import this_machine
from nfox.eval.bench.metrics import rows
from nfox.eval.bench.result import BenchResult, EntrantRecord
from nfox.eval.bench.simulation import simulation
from nfox.eval.bench.trials import Bench, Trial


def summarise(
    bench: Bench,
    trials: Sequence[Trial],
    settings: dict[str, Any],
    *,
    model: str,
    target: str,
    command: str,
) -> BenchResult:
    """Return the result of a benchmark.

    Args:
        bench: that ran the trials.
        trials: all rounds of all entrants.
        settings: all that was asked for, by the names of the command's options.
        model: the model's name without the folders around it.
        target: the name of the model in the rows.
        command: that was typed.
    """
    engine = bench.engine
    parted = divergences(bench, trials)
    peers = {entrant.name for entrant in bench.entrants if entrant.kind == "peer"}
    categories = [task.category for task in bench.tasks]
    table = rows(target, trials, categories, parted, peers)
    return BenchResult(
        machine=this_machine(engine, command),
        settings=settings,
        entrants={entrant.name: _record(bench, entrant, model) for entrant in bench.entrants},
        missing=bench.missing,
        rows=table,
        simulation=simulation(bench.entrants, trials, table, engine.costs),
        divergences=[_row(bench, divergence) for divergence in parted],
    )


def _record(bench: Bench, entrant: Entrant, model: str) -> EntrantRecord:
    """Return what an entrant is; folders beside the model's are named without those around it."""
    words = bench.runners[entrant.name].describe().replace(bench.engine.model.name, model)
    return EntrantRecord(kind=entrant.kind, settings=words)


def _row(bench: Bench, divergence: Divergence) -> DivergenceRow:
    return DivergenceRow(**{**asdict(divergence), "task": bench.tasks[divergence.task].id})
