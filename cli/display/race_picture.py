"""A race of methods in columns: each with its numbers and its text at a moment, or at the end."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import groupby
from math import ceil, inf
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.style import Style
from rich.table import Table
from rich.text import Text

from nfox.controls import sanitize
from nfox.race import pieces_of
from nfox.text.pieces import text_of

from .reply_stats import duration
from .reply_view import clean
from .steps import visible_text
from .theme import Screen, Symbols

if TYPE_CHECKING:
    from nfox.race import Race, Run
    from nfox.text.pieces import Piece

FRAME = 0.08  # seconds between two frames
_DIM, _BOLD = Style(dim=True), Style(bold=True)
_GAP = 2  # cells between columns
_SHORTEST = 2.0  # seconds, below which nobody would see who is ahead
# A terminal may take an emoji for wider than rich does; a row that wraps would never be erased.
_CUT, _WRAP = "\x1b[?7l", "\x1b[?7h"
_AROUND = 9  # rows of a frame that are not of the texts


class RacePicture:
    """Draws a race.

    Args:
        race: the race.
        tokenizer: of the target.
    """

    def __init__(self, race: Race, tokenizer: Any) -> None:
        self.race = race
        self._tokenizer = tokenizer

    @property
    def slowness(self) -> int:
        """How many times slower than measured the race is shown; 1 unless it is very short."""
        return max(ceil(_SHORTEST / self.race.seconds), 1) if self.race.seconds else 1

    @property
    def note(self) -> str:
        """How the race was measured, and how it is shown."""
        slower = f", {self.slowness} times slower" if self.slowness > 1 else ""
        return (
            "measured one after the other, since they share this machine, once the prompt was "
            f"read; shown together at the pace that was measured{slower}"
        )

    def frame(self, screen: Screen, seconds: float = inf, *, whole: bool = False) -> Table:
        """Return the columns as they are after so many seconds.

        Args:
            screen: how tokens are marked, and how much room there is.
            seconds: since the start; by default all is over.
            whole: show the texts from their beginnings, whatever the height of the screen.
        """
        runs, console = self.race.runs, screen.console
        width = max(console.width // len(runs) - _GAP, 1)
        height = max(console.height - _AROUND, 1)
        columns = Table.grid(padding=(0, _GAP, 0, 0))
        heads, texts = [], []
        for run in runs:
            columns.add_column(width=width, overflow="fold")
            heads.append(self._head(run, screen.symbols, seconds))
            pieces = pieces_of(run.until(seconds))
            lines = _marked(pieces, screen).wrap(console, width, overflow="fold")
            texts.append(Text("\n").join(lines if whole else lines[-height:]))
        columns.add_row(*heads)
        columns.add_row("")
        columns.add_row(*texts)
        return columns

    def play(self, screen: Screen) -> None:
        """Draw the race as it went, and nothing of it when it is over, or on Ctrl-C."""
        live = Live(
            console=screen.console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        begin = time.monotonic()
        screen.console.file.write(_CUT)
        try:
            with suppress(KeyboardInterrupt), live:
                while (now := (time.monotonic() - begin) / self.slowness) < self.race.seconds:
                    live.update(self.frame(screen, now), refresh=True)
                    time.sleep(FRAME)
        finally:
            screen.console.file.write(_WRAP)

    def table(self, symbols: Symbols) -> list[str]:
        """Return the numbers of the race as lines, under a line of headings."""
        rows = [("method", "place", "time", "tok/s", symbols.tau, "tokens", "text")]
        for run in self.race.runs:
            stats, place = run.reply.stats, self.race.place(run)
            speed, tau = f"{stats.tokens_per_second:.1f}", f"{stats.tau:.2f}"
            verdict = self.verdict(run, symbols)
            took = duration(run.seconds)
            rows.append((run.name, f"{place}", took, speed, tau, f"{stats.tokens}", verdict))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]

    def texts(self) -> dict[str, list[str]]:
        """Return the names of the methods by what they answered."""
        answers: dict[str, list[str]] = {}
        for run in self.race.runs:
            answers.setdefault(sanitize(run.reply.text), []).append(run.name)
        return answers

    def verdict(self, run: Run, symbols: Symbols) -> str:
        """Return whether a run's text is that of the reference, and if not, where they part."""
        reference = self.race.reference
        if run is reference:
            return "compared with"
        index = self.race.parting(run)
        if index is None:
            return f"identical to {reference.name}"
        own, other = (
            visible_text(ids[index], self._tokenizer, symbols) if index < len(ids) else "the end"
            for ids in (run.reply.ids, reference.reply.ids)
        )
        return f"differs from token {index + 1} on: {own}, {reference.name} says {other}"

    def _head(self, run: Run, symbols: Symbols, seconds: float) -> Text:
        """Return the lines above a run's text."""
        moments = run.until(seconds)
        if not moments:
            return Text(run.name, _BOLD) + Text(f"\nreading {symbols.ellipsis}\n", _DIM)
        last = moments[-1]
        speed = f"{last.tokens_per_second:.1f} tok/s{symbols.dot}{symbols.tau} {last.tau:.2f}"
        is_done = len(moments) == len(run.moments)
        title = f"{run.name}  #{self.race.place(run)}" if is_done else run.name
        ending = f"{last.tokens} tok"
        if is_done:
            ending += f" in {duration(run.seconds)}\n{self.verdict(run, symbols)}"
        return Text(title, _BOLD) + Text(f"\n{speed}\n{ending}", _DIM)


def _marked(pieces: Iterable[Piece], screen: Screen) -> Text:
    """Return a text in the styles and the brackets of its sources."""
    text = Text()
    for source, run in groupby(pieces, key=lambda piece: piece.source):
        opening, closing = screen.brackets.get(source, ("", ""))
        text.append(f"{opening}{clean(text_of([*run]))}{closing}", screen.styles[source])
    return text
