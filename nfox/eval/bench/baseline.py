"""The baseline that ratios of later results may not fall below."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from nfox.errors import UsageError
from nfox.eval.bench.compare import SETTINGS, machines_differ, settings_differ
from nfox.eval.bench.figures import Key, Row
from nfox.eval.bench.noise import Interval, interval
from nfox.eval.bench.result import Baseline, BaselineMachine, BaselineRow, BenchResult, rounds

RATIOS = ("speedup", "efficiency", "tau", "overhead")
"""The figures of a baseline's rows."""


def baseline(results: Sequence[BenchResult]) -> Baseline:
    """Make the baseline of later runs: medians of several results, with the widest bounds.

    It holds ratios alone. Peers are not in it: what other programs do is not guarded.

    Raises:
        UsageError: if the results are not of the same settings, machine and rows.
    """
    first = results[0]
    for other in results[1:]:
        differences = settings_differ(first, other)
        differences += machines_differ(first.machine, other.machine, BaselineMachine.model_fields)
        differences += [f"rows differ: {name}" for name in _rows_differ(first, other)]
        if differences:
            raise UsageError(
                f"results of one baseline must be alike; {differences[0]}",
                "run the same command several times",
            )
    settings = {name: first.settings.get(name) for name in SETTINGS}
    tables = [guarded_rows(result) for result in results]
    return Baseline(
        results=len(results),
        machine=BaselineMachine(dtype=first.machine.dtype, threads=first.machine.threads),
        settings=settings | {"rounds": min(map(rounds, results))},
        rows=[_row([table[key] for table in tables]) for key in tables[0]],
    )


def guarded_rows(result: BenchResult) -> dict[Key, Row]:
    """Return the rows of a result without those of peers."""
    return {row.key: row for row in result.rows if result.kind(row.method) != "peer"}


def _rows_differ(old: BenchResult, new: BenchResult) -> list[str]:
    """Return the names of the rows that only one of two results has."""
    before, after = (
        {(*key, row.prompts) for key, row in guarded_rows(result).items()} for result in (old, new)
    )
    return sorted(f"{method}, {tasks}, {n} prompts" for _, method, tasks, n in before ^ after)


def _row(rows: Sequence[Row]) -> BaselineRow:
    """Return the baseline's row of the same row of several results."""
    target, method, category = rows[0].key
    return BaselineRow(
        target=target,
        method=method,
        category=category,
        prompts=rows[0].prompts,
        **{ratio: _widest([interval(row, ratio) for row in rows]) for ratio in RATIOS},
    )


def _widest(intervals: Sequence[Interval | None]) -> Interval | None:
    """Return the median of the figures that are known, with the widest bounds of all."""
    known = [each for each in intervals if each is not None]
    if not known:
        return None
    low, high = min(each.low for each in known), max(each.high for each in known)
    return Interval(median(each.value for each in known), low, high)
