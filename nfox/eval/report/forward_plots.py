"""The plot of what forwards take: over their width, over the context, and the memory's floor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nfox.eval.bench.forwards import ForwardsResult
from nfox.eval.report import plot_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHADES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#222222")


def forward_plots(result: ForwardsResult) -> dict[str, Figure]:
    """Draw all plots of a result, and return them by name.

    Raises:
        UsageError: if matplotlib is not installed.
    """
    plot_style.check()
    with plot_style.style():
        return plot_style.finished({"forwards": _forwards(result)})


def _forwards(result: ForwardsResult) -> Figure:
    """Draw milliseconds over the width, and over the context."""
    from matplotlib.figure import Figure

    contexts, widths = result.contexts, result.widths

    def milliseconds(context: int, width: int) -> float:
        return 1e3 * result.fastest(context, width)

    over_width = {f"after {c:,} tokens": [milliseconds(c, n) for n in widths] for c in contexts}
    over_context = {f"{n} at once": [milliseconds(c, n) for c in contexts] for n in widths}
    figure = Figure((12, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _lines(left, widths, over_width, 1e3 * result.floor)
    _lines(right, contexts, over_context, 1e3 * result.floor)
    left.set_xlabel("N: tokens scored at once (logarithmic)")
    left.set_ylabel("t(N): milliseconds of a forward")
    right.set_xlabel("tokens in the context (logarithmic)")
    left.set_ylim(bottom=0)
    return figure


def _lines(
    axes: Axes, places: Sequence[int], lines: Mapping[str, Sequence[float]], floor: float
) -> None:
    """Draw lines over doubling values, with the floor below them."""
    for color, (name, values) in zip(_SHADES * len(lines), lines.items(), strict=False):
        axes.plot(places, values, color=color, marker="o", markersize=4, label=name)
    label = f"reading the weights once: {floor:.1f} ms"
    axes.axhline(floor, color=plot_style.GREY, linestyle="--", label=label)
    axes.set_xscale("log", base=2)
    axes.minorticks_off()
    axes.set_xticks(places, [f"{place:,}" for place in places])
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
