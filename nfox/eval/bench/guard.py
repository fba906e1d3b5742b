"""A result held against a baseline: whether a ratio is worse than noise allows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from nfox.errors import UsageError
from nfox.eval.bench.baseline import RATIOS, guarded_rows
from nfox.eval.bench.compare import machines_differ, settings_differ
from nfox.eval.bench.figures import ALL, Key
from nfox.eval.bench.noise import (
    BOUNDED,
    FEWEST,
    MARGIN,
    SPEEDUP_NOISE,
    Interval,
    enough,
    interval,
    most_overhead,
    tau_noise,
)
from nfox.eval.bench.result import Baseline, BaselineMachine, BaselineRow, BenchResult, rounds


@dataclass(frozen=True)
class Check:
    """A ratio of a result held against the baseline's.

    Args:
        target: of the row.
        method: of the row.
        category: of the row.
        ratio: one of `RATIOS`.
        was: in the baseline.
        now: in the result; None if it is not known there any more.
        limit: what noise allows: the least value, for the overhead the most.
        worse: whether the result is beyond that.
    """

    target: str
    method: str
    category: str
    ratio: str
    was: Interval
    now: Interval | None
    limit: float
    worse: bool


@dataclass(frozen=True)
class GuardReport:
    """What a guard found.

    Args:
        checks: one for each row and ratio.
        missing: rows and methods that the baseline has and the result has not.
        notes: what was not judged, and what is not in the baseline.
    """

    checks: tuple[Check, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]


def guard(base: Baseline, new: BenchResult, margin: float = MARGIN) -> GuardReport:
    """Hold the ratios of a result against a baseline.

    A speed-up or an efficiency is worse if its upper bound is below the baseline's lower bound by
    more than the margin (not judged of few conversations: `FEWEST`); a speed-up of all tasks, also
    if it is itself below the baseline's by more than `SPEEDUP_NOISE`; tau, if it is below its
    least by more than `tau_noise`; the overhead, if it alone makes steps longer by more than the
    margin. With another number of threads only tau is judged, with another dtype only what is
    missing: ratios are others there.

    Args:
        base: the baseline.
        new: a result.
        margin: share of a ratio.

    Raises:
        UsageError: if the settings are others, since nothing would be guarded then.
    """
    if differences := settings_differ(base, new):
        raise UsageError(
            "nothing would be guarded, since " + "; ".join(differences),
            "run with the baseline's settings, or make a new baseline",
        )
    machine = machines_differ(base.machine, new.machine, BaselineMachine.model_fields)
    ratios = RATIOS if not machine else ("tau",) if base.machine.dtype == new.machine.dtype else ()
    before, after = {row.key: row for row in base.rows}, guarded_rows(new)
    times = min(rounds(base), rounds(new))
    few = {key for key, row in before.items() if not enough(row, times)}
    checks = tuple(
        _check(row, ratio, was, interval(after[key], ratio), margin)
        for key, row in before.items()
        if key in after
        for ratio in ratios
        if (was := getattr(row, ratio)) and not (ratio in BOUNDED and key in few)
    )
    notes = _unjudged(machine, ratios, f"{len(few)} of {len(before)} rows" if few else "")
    added = dict.fromkeys(row.method for key, row in after.items() if key not in before)
    notes += [f"not in the baseline: {name}" for name in added]
    return GuardReport(checks, tuple(_missing(before, after, new.missing)), tuple(notes))


def _unjudged(machine: Collection[str], ratios: Collection[str], few: str) -> list[str]:
    """Return what is not judged, and why.

    Args:
        machine: where the machines differ.
        ratios: that are judged.
        few: how many rows are of few conversations; "" for none.
    """
    if machine:
        left = ", ".join(ratio for ratio in RATIOS if ratio not in ratios)
        return [f"not the baseline's machine ({', '.join(machine)}): {left} not judged"]
    why = f"{few} have fewer than {FEWEST} conversations: {', '.join(BOUNDED)} not judged there"
    return [why] if few else []


def _check(
    row: BaselineRow, ratio: str, was: Interval, now: Interval | None, margin: float
) -> Check:
    if ratio == "overhead":
        limit = most_overhead(was.high, margin)
        worse = now is None or now.value > limit
    else:
        limit = was.low * (1 - (tau_noise(row) if ratio == "tau" else margin))
        worse = now is None or now.high < limit
        least = was.value * (1 - SPEEDUP_NOISE)
        if ratio == "speedup" and row.category == ALL and now and now.value < least:
            limit, worse = least, True
    return Check(*row.key, ratio, was, now, limit, worse)


def _missing(before: Iterable[Key], after: Collection[Key], why: Mapping[str, str]) -> list[str]:
    """Return the methods that are missing, and the missing categories of the others.

    Args:
        before: the keys of the baseline's rows.
        after: the keys of the result's rows.
        why: methods could not run, by name.
    """
    methods = {method for _, method, _ in after}
    names = [
        f"{method}, {category}" if method in methods else
        f"{method} ({why[method]})" if method in why else method
        for target, method, category in before
        if (target, method, category) not in after
    ]  # fmt: skip
    return list(dict.fromkeys(names))
