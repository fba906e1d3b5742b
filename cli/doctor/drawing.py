"""Findings as aligned lines: what they are marked with are words, which every terminal has."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ..display.console import CleanConsole
from ..printing import say
from .findings import Advice, Finding, Mark

_STYLES: dict[Mark, str] = {"ok": "green", "warn": "yellow", "wrong": "bold red", "-": "dim"}
_NAME = 16  # characters of the column of names
_NARROW = 60  # columns of a terminal, below which there is no room for columns


class Drawing:
    """Draws findings one after the other, each as soon as it is known."""

    def __init__(self) -> None:
        self.console = CleanConsole()
        self._section = ""

    def finding(self, finding: Finding) -> None:
        """Draw one, under the heading of its section."""
        if finding.section != self._section:
            self._heading(finding.section)
        mark = (f"  {finding.mark:<5}  ", _STYLES[finding.mark])
        self._row(Text.assemble(mark, f"{finding.name:<{_NAME}} "), finding.text)

    def advice(self, advice: Sequence[Advice], *, is_busy: bool) -> None:
        """Draw what to do, each with its command in a line of its own.

        Args:
            advice: in the order in which it is drawn.
            is_busy: whether it was measured while other programs ran.
        """
        measured = " (measured while other programs ran)" if is_busy else ""
        self._heading(f"what to do, the most gain first{measured}")
        if not advice:
            say("  nothing: no change that was measured here is faster")
        for number, one in enumerate(advice, start=1):
            gain = f"{one.gain:.2f}x  " if one.gain else ""
            self._row(Text(f"  {number}. "), gain + one.text)
            if one.command:
                self.console.print(Text(f"     {one.command}", "bold"), soft_wrap=True)

    def _row(self, label: Text, text: str) -> None:
        """Draw a text behind a label, wrapped beside it; where no terminal wraps it, in one line,
        for whoever searches in them.
        """
        if not self.console.is_terminal:
            say(f"{label.plain}{text}")
            return
        if self.console.width < _NARROW:
            self.console.print(Text.assemble(label, text))
            return
        grid = Table.grid()
        grid.add_column(no_wrap=True, width=label.cell_len)
        grid.add_column(overflow="fold")
        grid.add_row(label, Text(text))
        self.console.print(grid)

    def _heading(self, name: str) -> None:
        self.console.print(Text(f"{name}" if not self._section else f"\n{name}", "bold"))
        self._section = name
