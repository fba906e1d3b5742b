"""Two results of the benchmark side by side, as tables and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, replace

from nfox.eval.bench.compare import Change
from nfox.eval.bench.figures import ALL
from nfox.eval.bench.guard import Check
from nfox.eval.bench.noise import Interval

from .table import console, table

_Key = tuple[str, str, str]  # of a row: method, category, target
_FIGURES = {
    "speedup": ("speed-up", ".2f"),
    "efficiency": ("efficiency", ".2f"),
    "tau": ("tau", ".2f"),
    "identical": ("identical", ".1%"),
    "overhead": ("overhead", ".1%"),
    "tokens_per_second": ("tok/s", ".2f"),
    "peak_memory_mb": ("MB", ".0f"),
}
"""The label of each figure, and the format of its values."""


def print_changes(both: Sequence[Change]) -> None:
    """Print the speed-ups with verdicts, then what else is known of every row.

    Args:
        both: rows that both results have.
    """
    speedups, others = {}, {}
    for change in both:
        speedup, *rest = change.figures
        beyond = [figure for figure in rest if figure.verdict in ("higher", "lower")]
        verdicts = [change.verdict, *(f"{_label(each.name)} {each.verdict}" for each in beyond)]
        key = (change.method, change.category, change.target)
        speedups[key] = [_arrow(speedup.name, speedup.old, speedup.new), ", ".join(verdicts)]
        others[key] = [_arrow(each.name, _point(each.old), _point(each.new)) for each in rest]
    names = [figure.name for change in both[:1] for figure in change.figures[1:]]
    _print_table(["speed-up", "verdict"], speedups)
    _print_table([_label(name) for name in names], others)


def print_checks(checks: Sequence[Check]) -> None:
    """Print one row for each method and category, with all of its ratios."""
    ratios = list(dict.fromkeys(check.ratio for check in checks))
    cells: dict[_Key, list[str]] = {}
    for check in checks:
        key = (check.method, check.category, check.target)
        row = cells.setdefault(key, [""] * len(ratios) + ["holds"])
        was, now = (check.was, check.now) if check.ratio == "speedup" else (
            _point(check.was), _point(check.now))  # fmt: skip
        row[ratios.index(check.ratio)] = _arrow(check.ratio, was, now)
        if check.worse:
            row[-1] = "worse"
    _print_table([*(_label(ratio) for ratio in ratios), "verdict"], cells)


def row_name(row: Change | Check) -> str:
    """Return the name of a row: its method, and its category unless it is of all tasks."""
    return row.method if row.category == ALL else f"{row.method}, {row.category}"


def complaint(check: Check) -> str:
    """Return a sentence on a ratio that is worse than noise allows."""
    ratio = check.ratio
    now = "cannot be seen" if check.now is None else f"is {_with_bounds(ratio, check.now)}"
    bound = "at most" if ratio == "overhead" else "at least"
    return (
        f"{row_name(check)}: {_label(ratio)} {now}, was {_with_bounds(ratio, check.was)}; "
        f"noise allows {bound} {_written(ratio, check.limit)}"
    )


def _print_table(columns: Sequence[str], rows: dict[_Key, list[str]]) -> None:
    """Print a table; the category and the target stand in it where there are several."""
    if not rows:
        return
    several = [part for part in (1, 2) if len({key[part] for key in rows}) > 1]
    grid = table("", *(("", "category", "target")[part] for part in several), *columns)
    for key, cells in rows.items():
        grid.add_row(key[0], *(key[part] for part in several), *cells)
    out = console()
    out.print(grid)
    out.print()


def _label(name: str) -> str:
    return _FIGURES[name][0]


def _point(interval: Interval | None) -> Interval | None:
    """Return an interval without its bounds."""
    return interval and replace(interval, low=interval.value, high=interval.value)


def _arrow(name: str, was: Interval | None, now: Interval | None) -> str:
    if was is None and now is None:
        return ""
    return f"{_with_bounds(name, was)} -> {_with_bounds(name, now)}"


def _with_bounds(name: str, interval: Interval | None) -> str:
    """Return a figure as text, with its bounds if it has any."""
    if interval is None:
        return "?"
    value, low, high = (_written(name, number) for number in astuple(interval))
    return value if interval.low == interval.high else f"{value} ({low}-{high})"


def _written(name: str, value: float) -> str:
    return format(value, _FIGURES[name][1])
