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
from nfox.eval.bench.result import BenchResult
from nfox.eval.report.entrants import OURS, SIMULATED, program, programs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves = Mapping[str, Sequence[tuple[float, float]]]

BLUE, ORANGE, GREY, INK, GRID = "#0072B2", "#E69F00", "#999999", "#222222", "#E4E4E4"
SPEEDUP_LABEL = "times the speed of plain decoding"
TAU_LABEL = "tau: tokens that a step gives"

WIDTH = 5.2
"""The width of every plot in inches: its letters can be read on a telephone."""

OF_PROGRAMS = (ORANGE, "#CC79A7", "#009E73", "#D55E00")
"""The colours of other programs, in their order."""
_OF_KIND = {"method": "-", "peer": "--", "simulated": ":"}
_LINES = (INK, BLUE, "#D55E00", "#009E73", "#CC79A7", "#56B4E9", ORANGE)
_MARKERS = "osD^vPX<>*p"
_WIDEST = 22  # characters of a name on one line
_STYLE = {
    "text.color": INK,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "font.size": 9,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
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


def empty_figure(height: float) -> Figure:
    """Return an empty figure of a height in inches."""
    from matplotlib.figure import Figure

    return Figure((WIDTH, height), layout="constrained")


def bars(names: Sequence[str], below: float = 0.5) -> tuple[Figure, Axes]:
    """Return a figure, and its axes with a name for each horizontal bar, the first one on top.

    Args:
        names: of the bars.
        below: the height in inches of what stands below them.
    """
    figure = empty_figure(0.3 + below + height(names))
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
    return len(names) * (0.1 + 0.17 * lines)


def wrapped(name: str) -> str:
    """Return a name broken into lines, between options where possible."""
    foldable = name.replace(":", ":\f")
    return "\n".join(textwrap.wrap(foldable, _WIDEST, replace_whitespace=False)).replace("\f", "")


def program_colors(result: BenchResult) -> dict[str, str]:
    """Return the colour of whatever entrants are of: nfox, other programs, a simulation."""
    others = [name for name in programs(result) if name not in (OURS, SIMULATED)]
    rivals = dict(zip(others, OF_PROGRAMS * len(others), strict=False))
    return {name: {OURS: BLUE, SIMULATED: GREY, **rivals}[name] for name in programs(result)}


def colors(result: BenchResult, rows: Iterable[Row]) -> list[str]:
    """Return the colour of every row: that of its program."""
    shades = program_colors(result)
    return [shades[program(result, row.method)] for row in rows]


def name_programs(figure: Figure, result: BenchResult, rows: Iterable[Row]) -> None:
    """Add a legend of what colours mean, where there are several."""
    from matplotlib.patches import Patch

    there = {program(result, row.method) for row in rows}
    shades = {name: color for name, color in program_colors(result).items() if name in there}
    if len(shades) > 1:
        patches = {name: Patch(color=color) for name, color in shades.items()}
        legend(figure, patches, above=True)


def legend_entries(handles: Mapping[str, Any]) -> tuple[list[Any], list[str]]:
    """Return the handles and the labels of a legend.

    Args:
        handles: what is drawn, by name.
    """
    return list(handles.values()), [wrapped(name) for name in handles]


def legend(figure: Figure, handles: Mapping[str, Any], *, above: bool = False) -> None:
    """Add a legend below a figure, or above it.

    Args:
        figure: the figure.
        handles: what is drawn, by name.
        above: above it.
    """
    entries, side = legend_entries(handles), "upper" if above else "lower"
    lines = [line for label in entries[1] for line in label.split("\n")]
    # In inches: a sample beside each name, and the letters.
    columns = max(1, min(len(handles), int(WIDTH / (0.5 + 0.09 * max(map(len, lines))))))
    figure.set_figheight(figure.get_figheight() + 0.17 * -(-len(lines) // columns))
    place: Any = f"outside {side} center"
    figure.legend(*entries, loc=place, ncols=columns)


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
            linestyle=_OF_KIND[kind],
            markerfacecolor=None if kind == "method" else "white",
            label=name,
        )
    return drawn
