"""The benchmark's tables at the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from nfox.counting import counted
from nfox.eval.bench.divergence import near_ties
from nfox.eval.bench.figures import Row, SimulationRow, written
from nfox.eval.bench.noise import enough
from nfox.eval.bench.result import BenchResult, rounds

from ..display.console import CleanConsole

_PIPE = 200  # columns where nobody says how many there are; tables take what they need


def console() -> CleanConsole:
    """Return a console for tables: as wide as the terminal, and wide enough in a pipe."""
    terminal = CleanConsole()
    return terminal if terminal.is_terminal else CleanConsole(width=_PIPE)


def print_table(result: BenchResult) -> None:
    """Print all tasks together, then every category, simulated rates, and notes on the run."""
    out = console()
    rows = result.of_category()
    width = max(len(name) for name in (*result.entrants, *result.missing))
    out.print(_together(rows, width, rounds(result)))
    for name, why in result.missing.items():
        out.print(Text.assemble(name.ljust(width + 2), (why, "dim")))
    if result.categories:
        out.print()
        out.print(_by_category(result))
    if result.simulation:
        out.print()
        out.print(_simulation(result.simulation))
    for line in _notes(rows[0], result):
        out.print(Text(line, "dim"))


def _notes(row: Row, result: BenchResult) -> list[str]:
    """Return lines about the machine, the peers, and where replies part from the plain ones.

    Args:
        row: any of all tasks.
        result: of the run.
    """
    machine = result.machine
    facts = [row.target, machine.dtype, machine.device]
    facts += [counted(machine.threads, "thread")] if machine.threads else []
    facts += [counted(row.prompts, "prompt")]
    lines = ["", f"{', '.join(map(str, facts))}; {machine.costs or 'costs not measured'}"]
    for name, entrant in result.entrants.items():
        if entrant.kind == "peer":
            lines.append(f"{name}: {entrant.settings}")
    parted = near_ties(result)
    for widest in parted[:1]:
        where = f"{widest.entrant}, {widest.task}, token {widest.token}"
        count = f"{len(parted)} conversations part from the plain ones"
        lines.append(f"{count}; widest gap of logits {written(widest.gap, '.3f')} ({where})")
    return lines


def table(*columns: str) -> Table:
    """Return an empty table of figures; the first column names things."""
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, column in enumerate(columns):
        grid.add_column(column, justify="right" if place else "left", no_wrap=True)
    return grid


def _together(rows: Sequence[Row], width: int, rounds: int) -> Table:
    """Return the table of all tasks; of few conversations bounds say nothing.

    Args:
        rows: of all tasks.
        width: of the column of names.
        rounds: how many times every task was run.
    """
    names = ("tau", "tok/s", "speed-up", "95 %", "eff.", "identical", "TTFT")
    grid = table(" " * width, *names, "t(N)/t(1)", "d", "predicted", "loop")
    for row in rows:
        too_long = f" ({row.too_long} too long)" if row.too_long else ""
        speeds = [
            written(row.tau),
            written(row.tokens_per_second, ".1f"),
            written(row.speedup),
            f"{written(row.speedup_low)}-{written(row.speedup_high)}"
            if enough(row, rounds)
            else "",
            written(row.efficiency),
        ]
        grid.add_row(
            row.method + too_long,
            *(speeds if row.steps else [""] * len(speeds)),  # see `_by_category`
            written(row.identical, ".0%"),
            f"{written(row.ttft_ms, '.0f')} ms",
            *map(written, (row.wide, row.drafting, row.predicted)),
            written(row.overhead, ".0%"),
        )
    return grid


def _by_category(result: BenchResult) -> Table:
    grid = table("tau, speed-up", *result.categories)
    rows = {(row.method, row.category): row for row in result.rows}
    for name in dict.fromkeys(row.method for row in result.rows):
        cells = [rows[name, category] for category in result.categories]
        # Nothing is known of a peer's steps where all tokens came with the prompt's forward.
        grid.add_row(
            name,
            *(f"{written(row.tau)}  {written(row.speedup)}" if row.steps else "" for row in cells),
        )
    return grid


def _simulation(rows: Sequence[SimulationRow]) -> Table:
    grid = table("simulated", "gamma", "tau", "of the formula", "cut", "speed-up", "expected")
    for row in rows:
        taus = (row.tau, row.expected_tau, row.expected_tau_cut)
        speedups = (row.speedup, row.expected_speedup)
        grid.add_row(row.method, str(row.gamma), *map(written, (*taus, *speedups)))
    return grid
