"""A benchmark as one page, made from its result alone: nothing is loaded from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfox.errors import UsageError
from nfox.eval.bench.metrics import EXPLAIN
from nfox.eval.bench.result import KINDS, Result, Row, categories, kind, number, of_category, parts
from nfox.eval.report.plot_style import image
from nfox.eval.report.plots import PLOTS, plots

_TEMPLATE = "page.html.jinja"
_ABOUT = ("nfox", "commit", "python", "device", "cores", "threads", "memory_gb", "system", "dtype")


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Args:
        head: above it.
        key: of its figure, as it is explained.
        cell: writes it for a row; "" where there is none.
    """

    head: str
    key: str
    cell: Callable[[Row], str]


def written(value: object, form: str) -> str:
    """Write a figure; "" for one that is not there."""
    known = number(value)
    return "" if known is None else format(known, form)


def interval(row: Row) -> str:
    """Write the bounds of a speed-up; "" where they are not known."""
    low, high = (written(row.get(f"speedup_{end}"), ".2f") for end in ("low", "high"))
    return f"{low}-{high}" if low and high else ""


def _figure(head: str, key: str, form: str) -> Column:
    return Column(head, key, lambda row: written(row.get(key), form))


def _part(head: str, place: int) -> Column:
    def cell(row: Row) -> str:
        return written(parts(row["time"])[place], ".2f") if row.get("time") else ""

    return Column(head, "time", cell)


COLUMNS = (
    _figure("tau", "tau", ".2f"),
    _figure("tokens/s", "tokens_per_second", ".1f"),
    _figure("speed-up", "speedup", ".2f"),
    Column("95 %", "speedup_low", interval),
    _figure("with prefill", "speedup_total", ".2f"),
    _figure("predicted", "predicted", ".2f"),
    _figure("efficiency", "efficiency", ".2f"),
    _figure("identical", "identical", ".0%"),
    _figure("gap", "gap", ".3f"),
    _figure("TTFT ms", "ttft_ms", ".0f"),
    _figure("nodes", "nodes", ".1f"),
    _figure("t(N)/t(1)", "wide", ".2f"),
    _figure("d", "drafting", ".2f"),
    _figure("overhead", "overhead", ".1%"),
    _part("draft ms", 0),
    _part("target ms", 1),
    _part("host ms", 2),
    _figure("memory MB", "peak_memory_mb", ".0f"),
    _figure("prompts", "prompts", ".0f"),
    _figure("tokens", "tokens", ".0f"),
    _figure("steps", "steps", ".0f"),
    _figure("too long", "too_long", ".0f"),
)
"""Of all tasks together."""


def page(result: Result) -> str:
    """Return a page about a benchmark: tables, plots, settings, machine, and what figures mean.

    Args:
        result: of it. Without matplotlib the page has no plots, and says so.
    """
    from jinja2 import Environment

    made = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = made.from_string(Path(__file__).with_name(_TEMPLATE).read_text(encoding="utf-8"))
    rows = of_category(result)
    return template.render(
        result=result,
        title=rows[0]["target"],
        entrants=_entrants(result),
        missing=result.get("missing") or {},
        columns=[one for one in COLUMNS if any(one.cell(row) for row in rows)],
        rows=rows,
        categories=categories(result),
        cells=_cells(result),
        deep=[row for row in rows if row.get("accept_by_depth")],
        divergences=_widest_first(result),
        about=_about(result.get("machine") or {}),
        settings=_given(result.get("settings") or {}),
        written=written,
        interval=interval,
        explain=EXPLAIN,
        **_drawn(result),
    )


def _entrants(result: Result) -> dict[str, dict[str, str]]:
    """Return what every entrant of the table is, and its settings."""
    given = result.get("entrants") or {}
    return {
        name: {
            "kind": kind(result, name),
            "called": KINDS[kind(result, name)],
            "settings": str(given.get(name, {}).get("settings") or ""),
        }
        for name in dict.fromkeys([row["method"] for row in result["rows"]])
    }


def _cells(result: Result) -> dict[tuple[str, str], Row]:
    """Return rows by method and category."""
    return {(row["method"], row["category"]): row for row in result["rows"]}


def _widest_first(result: Result) -> list[Mapping[str, Any]]:
    parted = result.get("divergences") or []
    return sorted(parted, key=lambda one: number(one.get("gap")) or 0.0, reverse=True)


def _about(machine: Mapping[str, Any]) -> dict[str, str]:
    """Return what is known of the machine, by what a reader calls it."""
    versions = machine.get("versions") or {}
    said = {name.replace("_gb", " (GB)"): machine.get(name) for name in _ABOUT}
    said["packages"] = ", ".join(f"{name} {of}" for name, of in versions.items())
    said["costs of wide forwards"] = machine.get("costs") or "not measured"
    return {name: str(value) for name, value in said.items() if value not in (None, "")}


def _given(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings that were given, or have a value of their own."""
    unsaid: Iterable[Any] = (None, False, "", [], {})
    return {name: str(value) for name, value in settings.items() if value not in unsaid}


def _drawn(result: Result) -> dict[str, Any]:
    """Return the plots, or why there are none."""
    from markupsafe import Markup

    try:
        found = plots(result)
    except UsageError as error:
        return {"plots": [], "plain": f"{error.message}: {error.hint}"}
    made = [(PLOTS[name], Markup(_inline(image(one, "svg")))) for name, one in found.items()]
    return {"plots": made, "plain": ""}


def _inline(svg: bytes) -> str:
    """Return an SVG as a part of a page, in which no two things may have one id."""
    text = svg.decode()
    return re.sub(r'<g id="[^"]*">', "<g>", text[text.index("<svg") :])
