"""Plots of a benchmark, made from its result alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nfox.drafters import plain_method
from nfox.eval.bench.figures import Row
from nfox.eval.bench.result import BenchResult, swept
from nfox.eval.report import plot_style
from nfox.eval.report.plot_style import BLUE, GREY, INK, ORANGE, SPEEDUP_LABEL, TAU_LABEL
from nfox.eval.report.sweep_plots import context, sweep, temperature

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PARTS = {
    "draft": ("drafting", ORANGE),
    "target": ("the target's forward", BLUE),
    "verify": ("judging", "#009E73"),
    "cache": ("the cache", "#CC79A7"),
    "host": ("the rest of the loop", GREY),
}
"""The parts of a step's time: their labels and colours."""


@dataclass(frozen=True)
class Plot:
    """A plot that a result may have.

    Args:
        title: its title.
        reading: a sentence on how it is read.
        draw: draws it; returns None where the result has nothing for it.
    """

    title: str
    reading: str
    draw: Callable[[BenchResult], Figure | None]


def plots(result: BenchResult) -> dict[str, Figure]:
    """Draw all plots that a result has something for, and return them by name.

    Raises:
        UsageError: if matplotlib is not installed.
    """
    plot_style.check()
    result = result.legible()
    with plot_style.style():
        drawn = {name: plot.draw(result) for name, plot in PLOTS.items()}
        figures = {name: figure for name, figure in drawn.items() if figure is not None}
        return plot_style.finished(figures)


def speedup(result: BenchResult) -> Figure | None:
    """Draw how many times faster every entrant is than plain decoding."""
    rows = [row for row in _others(result) if row.speedup is not None]
    if not rows:
        return None
    figure, axes = plot_style.bars([row.method for row in rows])
    across = axes.get_yaxis_transform()
    values = [row.speedup or 0.0 for row in rows]
    errors = []
    for place, (row, value) in enumerate(zip(rows, values, strict=True)):
        low, high = row.speedup_low, row.speedup_high
        axes.text(1.02, place, f"{value:.2f}", transform=across, va="center", weight="bold")
        if low is None or high is None:
            low = high = value
        else:
            axes.text(1.11, place, f"{low:.2f} to {high:.2f}", transform=across, va="center")
        errors.append((max(value - low, 0), max(high - value, 0)))
    axes.barh(
        range(len(rows)),
        values,
        color=plot_style.colors(result, rows),
        xerr=list(zip(*errors, strict=True)),
        error_kw={"ecolor": INK, "capsize": 3, "elinewidth": 1},
    )
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_xlabel(f"{SPEEDUP_LABEL} (line: 1), with its 95 % interval")
    plot_style.name_kinds(figure, result, rows)
    return figure


def tau_by_category(result: BenchResult) -> Figure | None:
    """Draw the tokens that a step gives, for every kind of tasks."""
    kinds = [name for name in result.categories if not swept(name)]
    rows = [row for row in _others(result) if row.tau is not None]
    if len(kinds) < 2 or not rows:
        return None
    names = [row.method for row in rows]
    columns = min(len(kinds), 4)
    lines = -(-len(kinds) // columns)
    height = 0.8 + lines * (0.5 + plot_style.height(names))
    figure = plot_style.empty_figure(names, 2.3 * columns, height)
    panels = list(figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat)
    for kind, axes in zip(kinds, panels, strict=False):
        taus = {row.method: row.tau or 0.0 for row in result.of_category(kind)}
        values = [taus.get(name, 0.0) for name in names]
        drawn = axes.barh(range(len(names)), values, color=plot_style.colors(result, rows))
        axes.bar_label(drawn, [f"{value:.2f}" if value else "" for value in values], padding=3)
        axes.set_title(plot_style.wrapped(kind))
        axes.grid(False, axis="y")
    for spare in panels[len(kinds) :]:
        spare.set_axis_off()
    plot_style.name_bars(panels[0], names)
    panels[0].margins(x=0.2)
    figure.supxlabel(TAU_LABEL, fontsize=10)
    plot_style.name_kinds(figure, result, rows)
    return figure


def acceptance(result: BenchResult) -> Figure | None:
    """Draw how often guesses are accepted, by how far ahead they are."""
    curves = {
        row.method: plot_style.points(enumerate(row.accept_by_depth or (), 1))
        for row in result.of_category()
    }
    deepest = max(map(len, curves.values()))
    if not deepest:
        return None
    figure = plot_style.empty_figure(curves, 5.2, 3.6)
    axes = figure.subplots()
    plot_style.legend(figure, plot_style.draw(axes, result, curves))
    axes.set_ylim(-0.03, 1.03)
    axes.set_xticks(range(1, deepest + 1, -(-deepest // 16)))
    axes.set_xlabel("depth: how many tokens ahead")
    axes.set_ylabel("accepted, of the steps\nthat drafted so deep")
    return figure


def step_time(result: BenchResult) -> Figure | None:
    """Draw where the time of a step goes."""
    times = [(row.method, row.time) for row in result.of_category() if row.time]
    if not times:
        return None
    figure, axes = plot_style.bars([method for method, _ in times])
    ends = [0.0] * len(times)
    bars = {}
    for part, (label, color) in _PARTS.items():
        widths = [getattr(time, part) or 0.0 for _, time in times]
        bars[label] = drawn = axes.barh(range(len(times)), widths, left=ends, color=color)
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    axes.bar_label(drawn, [f"{end:.1f}" for end in ends], padding=4)
    axes.margins(x=0.09)
    axes.set_xlabel("milliseconds of a step, which gives tau tokens")
    plot_style.legend(figure, bars, above=True)
    return figure


def simulated(result: BenchResult) -> Figure | None:
    """Draw the speed-up of simulated rates beside the one that the costs foretell."""
    rows = [row for row in result.simulation if row.speedup]
    if not rows:
        return None
    figure, axes = plot_style.bars([row.method for row in rows])
    places = range(len(rows))
    measured = [row.speedup or math.nan for row in rows]
    foretold = [row.expected_speedup or math.nan for row in rows]
    axes.hlines(places, measured, foretold, color=GREY, zorder=1)
    styles = {
        "expected from the costs": (foretold, "D", ORANGE),
        "measured": (measured, "o", BLUE),
    }
    marks = {}
    for label, (values, marker, color) in styles.items():
        drawn = axes.plot(values, places, marker, color=color, markersize=8, label=label)
        (marks[label],) = drawn
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_xlabel(f"{SPEEDUP_LABEL} (line: 1)")
    plot_style.legend(figure, marks, above=True)
    return figure


def _others(result: BenchResult) -> list[Row]:
    """Return the rows of all tasks, without that of plain decoding."""
    return [row for row in result.of_category() if row.method != plain_method()]


PLOTS = {
    "speedup": Plot(
        "Speed-up",
        "Right of the line is faster than plain decoding; an interval that holds the line may be "
        "chance.",
        speedup,
    ),
    "tau-by-category": Plot(
        "Tokens per step by category",
        "Longer is better; a method whose bars differ much depends on the kind of text.",
        tau_by_category,
    ),
    "acceptance": Plot(
        "Acceptance by depth",
        "How often a guess so many tokens ahead is kept; a line that falls fast does not pay to "
        "be drafted deeper.",
        acceptance,
    ),
    "context": Plot(
        "Speed over the length of the context",
        "Higher is better; broken lines are other programs.",
        context,
    ),
    "temperature": Plot(
        "Speed-up over temperature",
        "Above the line is faster than plain decoding at the same temperature; broken lines are "
        "other programs.",
        temperature,
    ),
    "step-time": Plot(
        "Where the time of a step goes",
        "A step may take longer than a plain one, as long as it gives more tokens than that.",
        step_time,
    ),
    "sweep": Plot(
        "Speed-up and tau over an option",
        "Where tau still rises and the speed-up does not, more drafting no longer pays.",
        sweep,
    ),
    "simulated": Plot(
        "Simulated acceptance",
        "The nearer the two marks, the better the measured costs foretell the speed.",
        simulated,
    ),
}
"""All plots, in the order in which they are shown."""
