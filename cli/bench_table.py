"""The benchmark's tables at the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

Row = dict[str, Any]
_PIPE = 120  # columns where nobody says how many there are


def print_table(result: dict[str, Any]) -> None:
    """Print all tasks together, then the speed-up of every category."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE)
    kinds = list(dict.fromkeys(row["category"] for row in result["rows"]))
    rows = [row for row in result["rows"] if row["category"] == kinds[0]]
    console.print(_together(rows))
    if len(kinds) > 1:
        console.print()
        console.print(_by_category(kinds[1:], result["rows"]))
    if result["simulation"]:
        console.print()
        console.print(_simulation(result["simulation"]))
    machine = result["machine"]
    shown = (rows[0]["target"], machine["dtype"], machine["device"])
    note = f"{', '.join(shown)}, {machine['threads']} threads, {rows[0]['prompts']} prompts"
    console.print(Text(f"\n{note}; {machine['costs'] or 'costs not measured'}", "dim"))
    parted = result["divergences"]
    if parted:
        widest = max(parted, key=lambda one: one["gap"])
        where = f"{widest['entrant']}, {widest['task']}, token {widest['token']}"
        said = f"{len(parted)} conversations part from the plain ones; widest gap of logits "
        console.print(Text(f"{said}{widest['gap']:.3f} ({where})", "dim"))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    return table


def _together(rows: list[Row]) -> Table:
    names = ("tau", "tok/s", "speed-up", "95 %", "efficiency", "identical", "TTFT")
    table = _table("", *names, "draft", "target", "host ms")
    for row in rows:
        spent = row["time"]
        host = spent["verify"] + spent["cache"] + spent["host"]
        too_long = f" ({row['too_long']} too long)" if row["too_long"] else ""
        table.add_row(
            row["method"] + too_long,
            f"{row['tau']:.2f}",
            f"{row['tokens_per_second']:.1f}",
            f"{row['speedup']:.2f}",
            f"{row['speedup_low']:.2f}-{row['speedup_high']:.2f}",
            f"{row['efficiency']:.2f}",
            f"{row['identical']:.0%}",
            f"{row['ttft_ms']:.0f}",
            f"{spent['draft']:.2f}",
            f"{spent['target']:.2f}",
            f"{host:.2f}",
        )
    return table


def _by_category(kinds: list[str], rows: list[Row]) -> Table:
    table = _table("tau, speed-up", *kinds)
    found = {(row["method"], row["category"]): row for row in rows}
    for name in dict.fromkeys(row["method"] for row in rows):
        cells = [found[name, kind] for kind in kinds]
        table.add_row(name, *(f"{cell['tau']:.2f}  {cell['speedup']:.2f}" for cell in cells))
    return table


def _simulation(listed: list[Row]) -> Table:
    table = _table("simulated", "gamma", "tau", "expected", "speed-up", "expected")
    for one in listed:
        foretold = one["expected_speedup"]
        table.add_row(
            one["method"],
            str(one["gamma"]),
            f"{one['tau']:.2f}",
            f"{one['expected_tau']:.2f}",
            f"{one['speedup']:.2f}",
            "" if foretold is None else f"{foretold:.2f}",
        )
    return table
