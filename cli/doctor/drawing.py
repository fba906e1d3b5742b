"""Findings as aligned lines: what they are marked with are words, which every terminal has."""

from __future__ import annotations

from collections.abc import Sequence

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..display.console import CleanConsole
from ..printing import say
from .findings import Advice, Finding, Mark

_STYLES: dict[Mark, str] = {"ok": "green", "warn": "yellow", "wrong": "bold red", "-": "dim"}
_NAME = 13  # characters of the column of names


class Drawing:
    """Draws findings one after the other, each as soon as it is known."""

    def __init__(self) -> None:
        self.console = CleanConsole()
        self._section = ""

    def finding(self, finding: Finding) -> None:
        """Draw one, under the heading of its section."""
        if finding.section != self._section:
            self._heading(finding.section)
        if not self.console.is_terminal:  # one line each, for whoever searches in them
            say(f"  {finding.mark:<5}  {finding.name:<{_NAME}} {finding.text}")
            return
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(width=2)
        grid.add_column(width=5, style=_STYLES[finding.mark])
        grid.add_column(width=max(_NAME, len(finding.name)))
        grid.add_column(overflow="fold")
        grid.add_row("", finding.mark, Text(finding.name), Text(finding.text))
        self.console.print(grid)

    def advice(self, advice: Sequence[Advice]) -> None:
        """Draw what to do, each with its command in a line of its own."""
        self._heading("what to do, the most gain first")
        if not advice:
            say("  nothing: no change that was measured here is faster")
        for number, one in enumerate(advice, start=1):
            gain = f"{one.gain:.2f}x  " if one.gain else ""
            line = Padding(Text(gain + one.text), (0, 0, 0, 5))
            self.console.print(f"  {number}. ", end="")
            self.console.print(line)
            self.console.print(Text(f"     {one.command}", "bold"), soft_wrap=True)

    def _heading(self, name: str) -> None:
        self.console.print(Text(f"{name}" if not self._section else f"\n{name}", "bold"))
        self._section = name
