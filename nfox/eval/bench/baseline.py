"""The baseline that ratios of later results may not fall below."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from nfox.errors import UsageError
from nfox.eval.bench.compare import SETTINGS, machines_differ, settings_differ
from nfox.eval.bench.noise import (
    BETWEEN,
    BOUNDED,
    FEWEST,
    MARGIN,
    Interval,
    enough,
    interval,
    most_overhead,
    tau_noise,
)
from nfox.eval.bench.result import ALL, BASELINE, Key, Result, Row, key, kind, rounds

_KEPT = ("dtype", "threads")  # any machine with the same can be held against it
_RATIOS = ("speedup", "efficiency", "tau", "overhead")


def baseline(results: Sequence[Result]) -> dict[str, Any]:
    """Make the baseline of later runs: medians of several, with the widest bounds.

    It holds ratios alone. Other programs are not in it: what they do is not guarded.

    Raises:
        UsageError: if the results are not of the same settings, machine and rows.
    """
    first = results[0]
    for other in results[1:]:
        differ = settings_differ(first, other) or machines_differ(first, other, _KEPT)
        differ = differ or [f"rows differ: {name}" for name in _rows_differ(first, other)]
        if differ:
            raise UsageError(
                f"results of one baseline must be alike; {differ[0]}",
                "run the same command several times",
            )
    every = [_own(result) for result in results]
    rows = [
        {name: row[name] for name in ("target", "method", "category", "prompts")}
        | {name: _widest([interval(rows[place], name) for rows in every]) for name in _RATIOS}
        for place, row in every[0].items()
    ]
    return {
        "schema": BASELINE,
        "results": len(results),
        "machine": {name: first["machine"].get(name) for name in _KEPT},
        "settings": {name: first["settings"].get(name) for name in SETTINGS}
        | {"rounds": min(map(rounds, results))},
        "rows": rows,
    }


def _own(result: Result) -> dict[Key, Row]:
    """Return the rows of a result without those of other programs."""
    return {key(row): row for row in result["rows"] if kind(result, row["method"]) != "peer"}


def _rows_differ(old: Result, new: Result) -> list[str]:
    before, after = (
        {(*place, row["prompts"]) for place, row in _own(one).items()} for one in (old, new)
    )
    return sorted(f"{method}, {tasks}, {n} prompts" for _, method, tasks, n in before ^ after)


def _widest(intervals: Sequence[Interval | None]) -> dict[str, float] | None:
    known = [one for one in intervals if one is not None]
    if not known:
        return None
    low, high = min(one.low for one in known), max(one.high for one in known)
    return asdict(Interval(median(one.value for one in known), low, high))


@dataclass(frozen=True)
class Check:
    """A ratio held against the baseline.

    Args:
        target: of the row.
        method: of the row.
        category: of the row.
        ratio: which.
        was: in the baseline.
        now: in the result; None if it cannot be seen there any more.
        limit: what noise allows: the least, of the overhead the most.
        worse: whether it is beyond that.
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
class Guarded:
    """What a guard found.

    Args:
        checks: of every row and ratio.
        missing: what the baseline has and the result has not.
        notes: what else there is to say.
    """

    checks: tuple[Check, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]


def guard(base: Result, new: Result, margin: float = MARGIN) -> Guarded:
    """Hold the ratios of a result against a baseline.

    A speed-up or an efficiency is worse if its upper bound is below the baseline's lower bound by
    more than the margin (not judged of few conversations: `FEWEST`); a speed-up of all tasks, also
    if it is itself below the baseline's by more than `BETWEEN`; tau, if it is below its
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
    if differ := settings_differ(base, new):
        raise UsageError(
            "nothing would be guarded, since " + "; ".join(differ),
            "run with the baseline's settings, or make a new baseline",
        )
    machine = machines_differ(base, new, _KEPT)
    ratios = _RATIOS if not machine else () if machines_differ(base, new, ("dtype",)) else ("tau",)
    before, after = _own(base), _own(new)
    times = min(rounds(base), rounds(new))
    few = {place for place, row in before.items() if not enough(row, times)}
    checks = tuple(
        _check(row, ratio, interval(after[place], ratio), margin)
        for place, row in before.items()
        if place in after
        for ratio in ratios
        if row[ratio] is not None and not (ratio in BOUNDED and place in few)
    )
    notes = _unjudged(machine, ratios, f"{len(few)} of {len(before)} rows" if few else "")
    added = dict.fromkeys(place[1] for place in after if place not in before)
    notes += [f"not in the baseline: {name}" for name in added]
    return Guarded(checks, tuple(_missing(before, after, new.get("missing", {}))), tuple(notes))


def _unjudged(machine: Iterable[str], ratios: Iterable[str], few: str) -> list[str]:
    """Say what is not judged, and why."""
    if machine:
        left = ", ".join(ratio for ratio in _RATIOS if ratio not in ratios)
        return [f"not the baseline's machine ({', '.join(machine)}): {left} not judged"]
    bounded = ", ".join(BOUNDED)
    why = f"{few} have fewer than {FEWEST} conversations: {bounded} not judged there"
    return [why] if few else []


def _check(base: Row, ratio: str, now: Interval | None, margin: float) -> Check:
    was = Interval(**base[ratio])
    if ratio == "overhead":
        limit = most_overhead(was.high, margin)
        worse = now is None or now.value > limit
    else:
        limit = was.low * (1 - (tau_noise(base) if ratio == "tau" else margin))
        worse = now is None or now.high < limit
        whole = was.value * (1 - BETWEEN)
        if ratio == "speedup" and base["category"] == ALL and now and now.value < whole:
            limit, worse = whole, True
    return Check(*key(base), ratio, was, now, limit, worse)


def _missing(before: Iterable[Key], after: Iterable[Key], why: Mapping[str, str]) -> list[str]:
    """Say which methods are missing, and which categories of those that are not."""
    there, methods = set(after), {method for _, method, _ in after}
    said = [
        f"{method}, {category}" if method in methods else
        f"{method} ({why[method]})" if method in why else method
        for target, method, category in before
        if (target, method, category) not in there
    ]  # fmt: skip
    return list(dict.fromkeys(said))
