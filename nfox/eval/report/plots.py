"""Plots of a benchmark, made from its result alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nfox.eval.bench.result import BenchResult
from nfox.eval.report import plot_style
from nfox.eval.report.entrants import fastest_first
from nfox.eval.report.plot_style import BLUE, GREY, INK, ORANGE, SPEEDUP_LABEL
from nfox.eval.report.speed_plots import speedup, tau_by_category
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
    result = fastest_first(result.legible())
    with plot_style.style():
        drawn = {name: plot.draw(result) for name, plot in PLOTS.items()}
        figures = {name: figure for name, figure in drawn.items() if figure is not None}
        return plot_style.finished(figures)


def acceptance(result: BenchResult) -> Figure | None:
    """Draw how often guesses are accepted, by how far ahead they are."""
    curves = {
        row.method: plot_style.points(enumerate(row.accept_by_depth or (), 1))
        for row in result.of_category()
    }
    deepest = max(map(len, curves.values()))
    if not deepest:
        return None
    figure = plot_style.empty_figure(3.8)
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


PLOTS = {
    "speedup": Plot(
        "Speed-up",
        "Right of the line is faster than plain decoding; an interval that holds the line may be "
        "chance. A bar that would flatten all others is cut.",
        speedup,
    ),
    "tau-by-category": Plot(
        "Tokens per step by category",
        "More is better; a method whose figures differ much depends on the kind of text.",
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
