"""Two results of the benchmark side by side, as tables and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nfox.eval.bench.compare import Change
from nfox.eval.bench.figures import ALL
from nfox.eval.bench.guard import Check
from nfox.eval.bench.noise import Interval

from .table import console, table

_Place = tuple[str, str, str]  # of a row: method, category, target
_FIGURES = {
    "speedup": ("speed-up", ".2f"),
    "efficiency": ("efficiency", ".2f"),
    "tau": ("tau", ".2f"),
    "identical": ("identical", ".1%"),
    "overhead": ("overhead", ".1%"),
    "tokens_per_second": ("tok/s", ".2f"),
    "peak_memory_mb": ("MB", ".0f"),
}
"""What they are called, and how they are written."""


def print_changes(both: Sequence[Change]) -> None:
    """Print the speed-ups with verdicts, then what else is known of every row.

    Args:
        both: rows that both results have.
    """
    speeds, others = {}, {}
    for change in both:
        speedup, *rest = change.figures
        beyond = [one for one in rest if one.verdict in ("higher", "lower")]
        words = [change.verdict, *(f"{_label(one.name)} {one.verdict}" for one in beyond)]
        place = (change.method, change.category, change.target)
        speeds[place] = [_arrow(speedup.name, speedup.old, speedup.new), ", ".join(words)]
        others[place] = [_arrow(one.name, _point(one.old), _point(one.new)) for one in rest]
    names = [figure.name for change in both[:1] for figure in change.figures[1:]]
    _print_table(["speed-up", "verdict"], speeds)
    _print_table([_label(name) for name in names], others)


def print_checks(checks: Sequence[Check]) -> None:
    """Print one row for each method and category, with all of its ratios."""
    ratios = list(dict.fromkeys(check.ratio for check in checks))
    cells: dict[_Place, list[str]] = {}
    for check in checks:
        place = (check.method, check.category, check.target)
        row = cells.setdefault(place, [""] * len(ratios) + ["holds"])
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
    """Say how much worse a ratio is."""
    ratio = check.ratio
    now = "cannot be seen" if check.now is None else f"is {_shown(ratio, check.now)}"
    bound = "at most" if ratio == "overhead" else "at least"
    return (
        f"{row_name(check)}: {_label(ratio)} {now}, was {_shown(ratio, check.was)}; "
        f"noise allows {bound} {_written(ratio, check.limit)}"
    )


def _print_table(columns: Sequence[str], rows: dict[_Place, list[str]]) -> None:
    """Print a table; the category and the target stand in it where there are several."""
    if not rows:
        return
    named = [part for part in (1, 2) if len({place[part] for place in rows}) > 1]
    grid = table("", *(("", "category", "target")[part] for part in named), *columns)
    for place, cells in rows.items():
        grid.add_row(place[0], *(place[part] for part in named), *cells)
    out = console()
    out.print(grid)
    out.print()


def _label(name: str) -> str:
    return _FIGURES[name][0]


def _point(interval: Interval | None) -> Interval | None:
    return interval and replace(interval, low=interval.value, high=interval.value)


def _arrow(name: str, was: Interval | None, now: Interval | None) -> str:
    if was is None and now is None:
        return ""
    return f"{_shown(name, was)} -> {_shown(name, now)}"


def _shown(name: str, interval: Interval | None) -> str:
    """Write a figure, with its bounds if it has any."""
    if interval is None:
        return "?"
    value, low, high = (
        _written(name, one) for one in (interval.value, interval.low, interval.high)
    )
    return value if interval.low == interval.high else f"{value} ({low}-{high})"


def _written(name: str, value: float) -> str:
    return format(value, _FIGURES[name][1])
