"""The benchmark's tables at the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nfox.eval.bench.noise import enough
from nfox.eval.bench.result import Result, Row, categories, of_category, rounds

_PIPE = 200  # columns where nobody says how many there are; tables take what they need


def console() -> Console:
    """Return what tables are printed on: as wide as the terminal, and wide enough in a pipe."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=_PIPE)


def print_table(result: Result) -> None:
    """Print all tasks together, then every category, and what else was found."""
    out = console()
    kinds, rows = categories(result), of_category(result)
    missing = result["missing"]
    width = max(len(name) for name in (*result["entrants"], *missing))
    out.print(_together(rows, width, rounds(result)))
    for name, why in missing.items():
        out.print(Text.assemble(name.ljust(width + 2), (why, "dim")))
    if kinds:
        out.print()
        out.print(_by_category(kinds, result["rows"]))
    if result["simulation"]:
        out.print()
        out.print(_simulation(result["simulation"]))
    for line in _notes(rows, result):
        out.print(Text(line, "dim"))


def _notes(rows: Sequence[Row], result: Result) -> list[str]:
    """Return what is to be known of the run: the machine, the peers, where replies part."""
    machine, parted = result["machine"], result["divergences"]
    target = ", ".join((rows[0]["target"], machine["dtype"], machine["device"]))
    costs = machine["costs"] or "costs not measured"
    lines = ["", f"{target}, {machine['threads']} threads, {rows[0]['prompts']} prompts; {costs}"]
    for name, entrant in result["entrants"].items():
        if entrant["kind"] == "peer":
            lines.append(f"{name}: {entrant['settings']}")
    if parted:
        widest = max(parted, key=lambda one: one["gap"])
        where = f"{widest['entrant']}, {widest['task']}, token {widest['token']}"
        said = f"{len(parted)} conversations part from the plain ones; widest gap of logits "
        lines.append(f"{said}{widest['gap']:.3f} ({where})")
    return lines


def table(*columns: str) -> Table:
    """Make a table of figures; the first column names things."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, column in enumerate(columns):
        made.add_column(column, justify="right" if place else "left", no_wrap=True)
    return made


def _together(rows: Sequence[Row], width: int, times: int) -> Table:
    """Return the table of all tasks; of few conversations bounds say nothing."""
    names = ("tau", "tok/s", "speed-up", "95 %", "eff.", "identical", "TTFT")
    grid = table(" " * width, *names, "t(N)/t(1)", "d", "predicted", "loop")
    for row in rows:
        too_long = f" ({row['too_long']} too long)" if row["too_long"] else ""
        known = row["steps"] > 0  # not of a peer where all came with the prompt's forward
        grid.add_row(
            row["method"] + too_long,
            f"{row['tau']:.2f}" if known else "",
            f"{row['tokens_per_second']:.1f}" if known else "",
            f"{row['speedup']:.2f}" if known else "",
            f"{row['speedup_low']:.2f}-{row['speedup_high']:.2f}"
            if known and enough(row, times)
            else "",
            f"{row['efficiency']:.2f}" if known else "",
            f"{row['identical']:.0%}",
            f"{row['ttft_ms']:.0f} ms",
            *(shown(row[name]) for name in ("wide", "drafting", "predicted")),
            shown(row["overhead"], ".0%"),
        )
    return grid


def shown(value: float | None, layout: str = ".2f") -> str:
    """Write a figure; one that is not known is left blank."""
    return "" if value is None else format(value, layout)


def _by_category(kinds: Sequence[str], rows: Sequence[Row]) -> Table:
    grid = table("tau, speed-up", *kinds)
    found = {(row["method"], row["category"]): row for row in rows}
    for name in dict.fromkeys(row["method"] for row in rows):
        cells = [found[name, kind] for kind in kinds]
        # Nothing is known of a peer's steps where all came with the prompt's forward.
        shares = (
            f"{cell['tau']:.2f}  {cell['speedup']:.2f}" if cell["steps"] else "" for cell in cells
        )
        grid.add_row(name, *shares)
    return grid


def _simulation(listed: Sequence[Row]) -> Table:
    grid = table("simulated", "gamma", "tau", "of the formula", "cut", "speed-up", "expected")
    for one in listed:
        grid.add_row(
            one["method"],
            str(one["gamma"]),
            f"{one['tau']:.2f}",
            f"{one['expected_tau']:.2f}",
            f"{one['expected_tau_cut']:.2f}",
            f"{one['speedup']:.2f}",
            shown(one["expected_speedup"]),
        )
    return grid
