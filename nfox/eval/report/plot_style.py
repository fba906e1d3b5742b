"""What plots of a benchmark share: colours, lettering, layout, and the files they become.

Colours are those of Okabe and Ito, which colour-blind people tell apart too.
"""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

from nfox.errors import UsageError
from nfox.eval.bench.figures import Row
from nfox.eval.bench.result import KINDS, BenchResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves = Mapping[str, Sequence[tuple[float, float]]]

BLUE, ORANGE, GREY, INK = "#0072B2", "#E69F00", "#999999", "#222222"
SPEEDUP_LABEL = "times the speed of plain decoding"
TAU_LABEL = "tau: tokens that a step gives"

_OF_KIND = dict(zip(KINDS, ((BLUE, "-"), (ORANGE, "--"), (GREY, ":")), strict=True))
_LINES = (INK, BLUE, "#D55E00", "#009E73", "#CC79A7", "#56B4E9", ORANGE)
_MARKERS = "osD^vPX<>*p"
_WIDEST = 34  # characters of a name on one line
_STYLE = {
    "text.color": INK,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "axes.edgecolor": GREY,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "legend.frameon": False,
    "svg.fonttype": "none",
}


def check() -> None:
    """Check that plots can be drawn.

    Raises:
        UsageError: if matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("plots need matplotlib, which is missing", "pip install 'nfox[bench]'")


def style(salt: str = "") -> AbstractContextManager[None]:
    """Return a context in which matplotlib draws the same whatever the person's own settings are.

    Args:
        salt: makes the ids in an SVG differ from those in others.
    """
    import matplotlib.style

    return matplotlib.style.context(["default", {**_STYLE, "svg.hashsalt": salt}])


def finished(figures: dict[str, Figure]) -> dict[str, Figure]:
    """Lay plots out for good, within `style`, and return them.

    Args:
        figures: the plots, by name.
    """
    for name, figure in figures.items():
        figure.set_label(name)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # else every drawing moves things a little
    return figures


def image(figure: Figure, kind: Literal["svg", "png"]) -> bytes:
    """Return the bytes of a plot's file: the same bytes for the same result.

    Args:
        figure: a plot, whose label is its name.
        kind: the format of the file.
    """
    omitted = ("Creator", "Date", "Format", "Type") if kind == "svg" else ("Software",)
    file = BytesIO()
    with style(f"nfox {figure.get_label()}"):  # plots on one page have ids of their own
        figure.savefig(file, format=kind, dpi=150, metadata=dict.fromkeys(omitted))
    return file.getvalue()


def empty_figure(names: Iterable[str], width: float, height: float) -> Figure:
    """Return an empty figure with room for names beside its axes.

    Args:
        names: that stand beside the axes.
        width: of the axes, in inches.
        height: of the figure, in inches.
    """
    from matplotlib.figure import Figure

    longest = max(len(line) for name in names for line in wrapped(name).split("\n"))
    return Figure((width + 0.6 + 0.09 * longest, height), layout="constrained")


def bars(names: Sequence[str]) -> tuple[Figure, Axes]:
    """Return a figure, and its axes with a name for each horizontal bar, the first one on top."""
    figure = empty_figure(names, 6, 1.1 + height(names))
    axes = figure.subplots()
    name_bars(axes, names)
    return figure, axes


def name_bars(axes: Axes, names: Sequence[str]) -> None:
    """Write a name beside each bar, the first one on top."""
    axes.set_yticks(range(len(names)), map(wrapped, names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(False, axis="y")


def height(names: Collection[str]) -> float:
    """Return the height in inches of horizontal bars that have these names."""
    lines = max(wrapped(name).count("\n") + 1 for name in names)
    return len(names) * (0.12 + 0.19 * lines)


def wrapped(name: str) -> str:
    """Return a name broken into lines, between options where possible."""
    foldable = name.replace(":", ":\f")
    return "\n".join(textwrap.wrap(foldable, _WIDEST, replace_whitespace=False)).replace("\f", "")


def colors(result: BenchResult, rows: Iterable[Row]) -> list[str]:
    """Return the colour of every row: that of its kind of entrant."""
    return [_OF_KIND[result.kind(row.method)][0] for row in rows]


def name_kinds(figure: Figure, result: BenchResult, rows: Iterable[Row]) -> None:
    """Add a legend of what colours mean, where there are several."""
    from matplotlib.patches import Patch

    kinds = {result.kind(row.method) for row in rows}
    if len(kinds) > 1:
        drawn = [kind for kind in KINDS if kind in kinds]
        patches = [Patch(color=_OF_KIND[kind][0], label=KINDS[kind]) for kind in drawn]
        figure.legend(handles=patches, loc="outside upper center", ncols=len(patches))


def legend_entries(handles: Mapping[str, Any]) -> tuple[list[Any], list[str]]:
    """Return the handles and the labels of a legend.

    Args:
        handles: what is drawn, by name.
    """
    return list(handles.values()), [wrapped(name) for name in handles]


def legend(figure: Figure, handles: Mapping[str, Any], *, above: bool = False) -> None:
    """Add a legend at the right of a figure, or above it.

    Args:
        figure: the figure.
        handles: what is drawn, by name.
        above: above it, in one line.
    """
    if above:
        figure.legend(*legend_entries(handles), loc="outside upper center", ncols=len(handles))
    else:
        figure.legend(*legend_entries(handles), loc="outside right upper")


def points(pairs: Iterable[tuple[float, float | None]]) -> list[tuple[float, float]]:
    """Return the points whose figure is known."""
    return [(x, y) for x, y in pairs if y is not None]


def draw(axes: Axes, result: BenchResult, curves: Curves) -> dict[str, Any]:
    """Draw a line for each name that has points, and return the lines by name.

    A name has the same colour and marker in all plots.
    """
    order = list(dict.fromkeys([row.method for row in result.rows] + list(curves)))
    drawn = {}
    for name, curve in curves.items():
        if not curve:
            continue
        place, kind = order.index(name), result.kind(name)
        (drawn[name],) = axes.plot(
            *zip(*curve, strict=True),
            color=_LINES[place % len(_LINES)],
            marker=_MARKERS[place % len(_MARKERS)],
            linestyle=_OF_KIND[kind][1],
            markerfacecolor=None if kind == "method" else "white",
            label=name,
        )
    return drawn
