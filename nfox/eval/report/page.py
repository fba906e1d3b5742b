"""A benchmark as one page, made from its result alone: nothing is loaded from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nfox.counting import counted
from nfox.errors import UsageError
from nfox.eval.bench.figures import EXPLAIN, DivergenceRow, Row, written
from nfox.eval.bench.result import BenchResult, Machine
from nfox.eval.report.entrants import bounds, fastest_first, lead, program
from nfox.eval.report.plot_style import GRID, INK, image, program_colors
from nfox.eval.report.plots import PLOTS, plots

_TEMPLATE = "page.html.jinja"
_VARIABLES = {INK: "--ink", GRID: "--line", "#FFFFFF": "--back"}
_MACHINE = (
    "nfox", "commit", "python", "device", "cores", "threads", "memory_gb", "system", "dtype",
)  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Args:
        head: the words above it.
        figure: the name of its figure, by which it is explained.
        cell: writes the figure of a row; "" where it is not known.
    """

    head: str
    figure: str
    cell: Callable[[Row], str]


def _figure(head: str, figure: str, form: str = ".2f") -> Column:
    return Column(head, figure, lambda row: written(getattr(row, figure), form))


def _part(head: str, part: str) -> Column:
    return Column(head, "time", lambda row: written(getattr(row.time, part)) if row.time else "")


SPEED = (
    _figure("speed-up", "speedup"),
    Column("95 %", "speedup_low", bounds),
    _figure("tokens/s", "tokens_per_second", ".1f"),
    _figure("tau", "tau"),
)
"""The columns of a table of the tasks of one category."""

TABLES = {
    "together": ("", (*SPEED, _figure("identical", "identical", ".0%"))),
    "costs": (
        "What a step costs",
        (
            _figure("nodes", "nodes", ".1f"),
            _figure("t(N)/t(1)", "wide"),
            _figure("d", "drafting"),
            _figure("predicted", "predicted"),
            _figure("efficiency", "efficiency"),
        ),
    ),
    "times": (
        "Where the time goes",
        (
            _part("draft ms", "draft"),
            _part("target ms", "target"),
            _part("host ms", "loop"),
            _figure("overhead", "overhead", ".1%"),
            _figure("TTFT ms", "ttft_ms", ".0f"),
        ),
    ),
    "counts": (
        "Whole conversations",
        (
            _figure("prompts", "prompts", ".0f"),
            _figure("tokens", "tokens", ".0f"),
            _figure("steps", "steps", ".0f"),
            _figure("too long", "too_long", ".0f"),
        ),
    ),
    "others": (
        "Prefill, memory and the widest divergence",
        (
            _figure("speed-up with prefill", "speedup_total"),
            _figure("MB", "peak_memory_mb", ".0f"),
            _figure("gap", "gap", ".3f"),
        ),
    ),
}
"""The tables of all tasks together: the title of each, and its columns, no more than fit on a
telephone."""


def page(result: BenchResult) -> str:
    """Return a page about a benchmark: tables, plots, settings, machine, and what figures mean.

    Without matplotlib the page has no plots, and says so.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["counted"] = counted
    source = Path(__file__).with_name(_TEMPLATE).read_text(encoding="utf-8")
    result = fastest_first(result.legible())
    rows = result.of_category()
    shades = program_colors(result)
    return environment.from_string(source).render(
        result=result,
        title=rows[0].target,
        lead=partial(lead, result),
        entrants=_entrants(result),
        shades=shades,
        marks={name: f"p{place}" for place, name in enumerate(shades)},
        tables={name: (title, _shown(columns, rows)) for name, (title, columns) in TABLES.items()},
        speed=_shown(SPEED, rows),
        rows=rows,
        deep=[row for row in rows if row.accept_by_depth],
        divergences=sorted(result.divergences, key=_gap, reverse=True),
        machine=_machine(result.machine),
        settings=_given(result.settings),
        written=written,
        explain=EXPLAIN,
        **_plots(result),
    )


def _entrants(result: BenchResult) -> dict[str, dict[str, str]]:
    """Return the program and the settings of every entrant of the table, by its name."""
    records = result.entrants
    return {
        name: {
            "program": program(result, name),
            "settings": records[name].settings if name in records else "",
        }
        for name in dict.fromkeys(row.method for row in result.rows)
    }


def _shown(columns: Iterable[Column], rows: Iterable[Row]) -> list[Column]:
    """Return the columns in which something stands."""
    return [column for column in columns if any(column.cell(row) for row in rows)]


def _gap(row: DivergenceRow) -> float:
    return row.gap or 0.0


def _machine(machine: Machine) -> dict[str, str]:
    """Return what is known of the machine, by what a reader calls it."""
    facts = {name.replace("_gb", " (GB)"): getattr(machine, name) for name in _MACHINE}
    facts["packages"] = ", ".join(f"{name} {of}" for name, of in machine.versions.items())
    facts["costs of wide forwards"] = machine.costs or "not measured"
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def _given(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings that were given, or have a value of their own."""
    absent: tuple[Any, ...] = (None, False, "", [], {})
    return {name: str(value) for name, value in settings.items() if value not in absent}


def _plots(result: BenchResult) -> dict[str, Any]:
    """Return the plots, each with its explanation, or why there are none."""
    from markupsafe import Markup

    try:
        figures = plots(result)
    except UsageError as error:
        return {"plots": [], "without_plots": f"{error.message}: {error.hint}"}
    drawn = {name: Markup(_inline(image(figure, "svg"))) for name, figure in figures.items()}
    return {"plots": [(PLOTS[name], svg) for name, svg in drawn.items()], "without_plots": ""}


def _inline(svg: bytes) -> str:
    """Return an SVG as a part of a page, in which no two things may have one id, and which is
    dark where the page is.
    """
    text = svg.decode()
    text = re.sub(r'<g id="[^"]*">', "<g>", text[text.index("<svg") :])
    for color, variable in _VARIABLES.items():
        text = re.sub(f"(?<=: ){color}\\b", f"var({variable})", text, flags=re.IGNORECASE)
    return text
