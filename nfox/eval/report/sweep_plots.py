"""Plots of a sweep: figures over the context's length, the temperature, or an option's values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from nfox.drafters import plain_method
from nfox.eval.bench.figures import Row
from nfox.eval.bench.result import BenchResult, swept
from nfox.eval.report.plot_style import (
    INK,
    SPEEDUP_LABEL,
    TAU_LABEL,
    draw,
    empty_figure,
    legend,
    legend_entries,
    points,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def context(result: BenchResult) -> Figure | None:
    """Draw the speed of every entrant over the length of the context."""
    figure = _over(result, "context", "tokens_per_second")
    if figure is not None:
        (axes,) = figure.axes
        _ticks(axes, doubling=True)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("tokens in the context (logarithmic)")
        axes.set_ylabel("tokens per second, without prefill")
    return figure


def temperature(result: BenchResult) -> Figure | None:
    """Draw the speed-up of every entrant over the temperature."""
    figure = _over(result, "temperature", "speedup", without=plain_method())
    if figure is not None:
        (axes,) = figure.axes
        _ticks(axes)
        axes.axhline(1, color=INK, linewidth=1, zorder=1)
        axes.set_xlabel("temperature")
        axes.set_ylabel(SPEEDUP_LABEL)
    return figure


def sweep(result: BenchResult) -> Figure | None:
    """Draw speed-up and tau over the values of every option that has several."""
    options = _by_option(result.of_category())
    if not options:
        return None
    figure = empty_figure(3.4 * len(options))
    shown = {"speedup": SPEEDUP_LABEL, "tau": TAU_LABEL}
    grid = figure.subplots(len(options), len(shown), squeeze=False)
    for line, (option, groups) in zip(grid, options.items(), strict=True):
        for axes, (metric, label) in zip(line, shown.items(), strict=True):
            curves = {
                name: points((value, getattr(row, metric)) for value, row in sorted(rows.items()))
                for name, rows in groups.items()
            }
            handles = draw(axes, result, curves)
            _ticks(axes)
            axes.set_xlabel(option)
            axes.set_ylabel(label)
        line[0].axhline(1, color=INK, linewidth=1, zorder=1)
        line[0].legend(*legend_entries(handles), fontsize=7)
    return figure


def _over(result: BenchResult, swept_over: str, metric: str, without: str = "") -> Figure | None:
    """Draw a metric of every entrant over the values that categories of a sweep stand for.

    Args:
        result: of a benchmark.
        swept_over: "context" or "temperature".
        metric: the name of a figure in the rows.
        without: the entrant that is left out.
    """
    conditions = {category: swept(category) for category in result.categories}
    values = {read[1]: name for name, read in conditions.items() if read and read[0] == swept_over}
    curves: dict[str, list[tuple[float, float]]] = {}
    for value, category in sorted(values.items()):
        for row in result.of_category(category):
            if row.method != without:
                point = points([(value, getattr(row, metric))])
                curves.setdefault(row.method, []).extend(point)
    if len(values) < 2 or not any(curves.values()):
        return None
    figure = empty_figure(4)
    legend(figure, draw(figure.subplots(), result, curves))
    return figure


def _ticks(axes: Axes, *, doubling: bool = False) -> None:
    """Mark the values that there are, if they are few; far apart, at equal steps of doubling."""
    import numpy as np

    drawn = [np.asarray(line.get_xdata(), float) for line in axes.get_lines()]
    values = sorted({float(x) for line in drawn for x in line})
    if doubling or values[-1] > 10 * values[0] > 0:
        axes.set_xscale("log", base=2)
        axes.minorticks_off()
    if len(values) <= 12:
        axes.set_xticks(values, [f"{value:.10g}" for value in values])


def _by_option(rows: Iterable[Row]) -> dict[str, dict[str, dict[float, Row]]]:
    """Return rows by option, by the method with its other options, and by value.

    Only options with several values are among them.
    """
    groups_of: dict[str, dict[str, dict[float, Row]]] = {}
    for row in rows:
        method, *options = row.method.split(":")
        for option in options:
            name, _, text = option.partition("=")
            rest = ":".join([method, *(other for other in options if other != option)])
            try:
                value = float(text)
            except ValueError:
                continue
            if math.isfinite(value):
                groups_of.setdefault(name, {}).setdefault(rest, {})[value] = row
    several = {
        name: {rest: values for rest, values in groups.items() if len(values) > 1}
        for name, groups in groups_of.items()
    }
    return {name: groups for name, groups in several.items() if groups}
