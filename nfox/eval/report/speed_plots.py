"""Plots of speed-ups, and of the tokens per step that make them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nfox.drafters import plain_method
from nfox.eval.bench.figures import Row
from nfox.eval.bench.result import BenchResult, swept
from nfox.eval.report import plot_style
from nfox.eval.report.plot_style import BLUE, INK, SPEEDUP_LABEL, TAU_LABEL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FLATTENS = 2.0  # how many times as long as the next one a bar may be


def speedup(result: BenchResult) -> Figure | None:
    """Draw how many times faster every entrant is than plain decoding."""
    rows = [row for row in _others(result) if row.speedup is not None]
    if not rows:
        return None
    figure, axes = plot_style.bars([row.method for row in rows])
    across: Any = axes.get_yaxis_transform()
    values = [row.speedup or 0.0 for row in rows]
    errors = []
    for place, (row, value) in enumerate(zip(rows, values, strict=True)):
        low, high = row.speedup_low, row.speedup_high
        beside = {"xy": (1, place), "xycoords": across, "textcoords": "offset points"}
        beside |= {"va": "center", "annotation_clip": False}
        axes.annotate(f"{value:.2f}", xytext=(5, 0), weight="bold", **beside)
        if low is None or high is None:
            low = high = value
        else:
            text = f"{low:.2f}-{high:.2f}"
            axes.annotate(text, xytext=(32, 0), fontsize=7.5, **beside)
        errors.append((max(value - low, 0), max(high - value, 0)))
    axes.barh(
        range(len(rows)),
        values,
        color=plot_style.colors(result, rows),
        xerr=list(zip(*errors, strict=True)),
        error_kw={"ecolor": INK, "capsize": 2, "elinewidth": 1},
    )
    axes.axvline(1, color=INK, linewidth=1)
    _cut(axes, values, max(value + error for value, (_, error) in zip(values, errors, strict=True)))
    axes.set_xlabel(f"{SPEEDUP_LABEL} (line: 1), with its 95 % interval")
    plot_style.name_programs(figure, result, rows)
    return figure


def _cut(axes: Axes, values: Sequence[float], end: float) -> None:
    """End the axis before bars that would flatten all others, and mark these as cut.

    Args:
        axes: of the bars.
        values: their lengths.
        end: where the longest of them and its interval end.
    """
    inner = sorted(values)
    while len(inner) > 1 and inner[-1] > _FLATTENS * inner[-2]:
        inner.pop()
    room = max(1.2, 1.5 * inner[-1])
    border = room if len(inner) < len(values) else min(room, 1.05 * end)
    axes.set_xlim(0, border)
    for place, value in enumerate(values):
        if value > border:
            axes.plot([0.95 * border] * 2, [place - 0.5, place + 0.5], color="white", linewidth=3)


def tau_by_category(result: BenchResult) -> Figure | None:
    """Draw the tokens that a step gives, for every kind of tasks."""
    from matplotlib.colors import to_rgba

    kinds = [name for name in result.categories if not swept(name)]
    rows = [row for row in _others(result) if (row.tau or 1) > 1]
    if len(kinds) < 2 or not rows:
        return None
    names = [row.method for row in rows]
    labels = [plot_style.wrapped(kind) for kind in kinds]
    longest = max(len(line) for label in labels for line in label.split("\n"))
    figure, axes = plot_style.bars(names, below=0.6 + 0.07 * longest)
    cells = {
        (names.index(row.method), place): row.tau
        for place, kind in enumerate(kinds)
        for row in result.of_category(kind)
        if row.method in names and row.tau is not None
    }
    drafted = [tau for (line, _), tau in cells.items() if result.kind(names[line]) != "simulated"]
    most = max([*drafted, 1.001])
    for (line, place), tau in cells.items():
        shade = to_rgba(BLUE, 0.6 * min(1.0, max(0.0, (tau - 1) / (most - 1))))
        axes.barh(line, 1, height=1, left=place - 0.5, color=shade)
        axes.text(place, line, f"{tau:.1f}", ha="center", va="center", fontsize=8)
    axes.set_xlim(-0.5, len(kinds) - 0.5)
    axes.set_xticks(range(len(kinds)), labels, rotation=40, ha="right")
    axes.tick_params(length=0)
    axes.grid(False)
    axes.set_xlabel(TAU_LABEL)
    return figure


def _others(result: BenchResult) -> list[Row]:
    """Return the rows of all tasks, without that of plain decoding."""
    return [row for row in result.of_category() if row.method != plain_method()]
