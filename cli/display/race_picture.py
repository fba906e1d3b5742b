"""A race of methods in columns: each with its numbers and its text at a moment, or at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from math import inf
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.containers import Lines
from rich.style import Style
from rich.table import Table
from rich.text import Text

from nfox.decoding import clock
from nfox.race import pieces_of
from nfox.text.pieces import text_of

from .frames import drawing_frames
from .race_results import RaceResults
from .reply_stats import join_fitting
from .reply_view import clean
from .theme import Screen

if TYPE_CHECKING:
    from nfox.decoding.stats import Stats
    from nfox.race import Race, Run

FRAME = 0.08  # seconds between two frames
_DIM, _BOLD = Style(dim=True), Style(bold=True)
_GAP = 2  # cells between columns
_NARROWEST = 18  # cells of a column, where the screen has that many
_BLANK = 3  # rows of a column without anything
MEASURED = "measured one after the other"
"""How a race was measured."""
_SHORTEST = 2.0  # seconds, below which nobody would see who is ahead


@contextmanager
def answering(
    name: str, screen: Screen, say: Callable[[str], object]
) -> Iterator[Callable[[Stats], None]]:
    """Show who answers, and how far that is, in a row that is gone at the end.

    Args:
        name: of the method.
        screen: the screen to draw on.
        say: is called with a line where nothing may be drawn.

    Yields:
        A function that is called with the numbers after every step.
    """
    words, drawn = f"answering with {name}", 0.0
    if not screen.live:
        say(words)
        yield lambda stats: None
        return
    with drawing_frames(screen.console) as frames:

        def on_step(stats: Stats) -> None:
            nonlocal drawn
            if clock.now() - drawn >= FRAME:
                drawn = clock.now()
                parts = words, f"{stats.tokens} tok", f"{stats.tokens_per_second:.1f} tok/s"
                row = join_fitting(parts, screen.console.width, screen.symbols.dot)
                frames.draw(Text(row, _DIM))

        frames.draw(Text(words, _DIM))
        yield on_step


class RacePicture:
    """Draws a race.

    Args:
        race: the race.
        tokenizer: of the target.
    """

    def __init__(self, race: Race, tokenizer: Any) -> None:
        self.race = race
        self.results = RaceResults(race, tokenizer)

    @property
    def slowness(self) -> int:
        """How many times slower than measured the race is shown; 1 unless it is very short."""
        return max(round(_SHORTEST / self.race.seconds), 1) if self.race.seconds else 1

    @property
    def note(self) -> str:
        """How the race was measured, and how it is shown."""
        slower = f", {self.slowness} times slower" if self.slowness > 1 else ""
        shown = f", then shown together at that pace{slower}" if self.race.is_complete else ""
        return f"{MEASURED}{shown}"

    def frame(
        self, screen: Screen, seconds: float | None = None, *, whole: bool = False
    ) -> RenderableType:
        """Return the columns as they are after so many seconds, in rows of as many as fit.

        Args:
            screen: how tokens are marked, and how much room there is.
            seconds: since the start; None when all is over.
            whole: show the texts from their beginnings, whatever the height of the screen.
        """
        runs, console = self.race.runs, screen.console
        moment = inf if seconds is None else seconds
        abreast = min(len(runs), max(console.width // (_NARROWEST + _GAP), 1))
        rows = [runs[start : start + abreast] for start in range(0, len(runs), abreast)]
        width = max(console.width // abreast - _GAP, 1)
        height = None if whole else (console.height - 1) // len(rows)
        return Group(*(self._columns(row, screen, moment, width, height) for row in rows))

    def _columns(
        self, runs: Sequence[Run], screen: Screen, seconds: float, width: int, height: int | None
    ) -> Table:
        """Return columns of some width: as high as there is room, or with None as they need."""
        grid = Table.grid(padding=(0, _GAP, 0, 0))
        heads, texts, feet = [], [], []
        for run in runs:
            grid.add_column(width=width)
            heads.append(_head(run, screen, seconds).wrap(screen.console, width))
            texts.append(_text(run, screen, seconds).wrap(screen.console, width))
            foot = self._foot(run, screen, width).wrap(screen.console, width)
            # Its room is kept before it is due.
            feet.append(foot if seconds >= run.seconds else Lines([Text()] * len(foot)))
        if height is not None:
            room = height - max(map(len, heads)) - _BLANK
            feet = [Lines(lines[: max(room - 1, 0)]) for lines in feet]
            room -= max(map(len, feet))
            texts = [Lines(lines[-max(room, 1) :]) for lines in texts]
        for cells in (heads, texts, feet):
            grid.add_row(*(Text("\n").join(lines) for lines in cells))
            grid.add_row("")
        return grid

    def play(self, screen: Screen) -> float | None:
        """Draw the race as it went, and nothing of it when it is over.

        Returns:
            None, or at which second Ctrl-C stopped it.
        """
        begin, now = clock.now(), 0.0
        try:
            with drawing_frames(screen.console) as frames:
                while now < self.race.seconds:
                    frames.draw(self.frame(screen, now))
                    time.sleep(FRAME)
                    now = (clock.now() - begin) / self.slowness
        except KeyboardInterrupt:
            return now
        return None

    def _foot(self, run: Run, screen: Screen, width: int) -> Text:
        """Return the lines below a run's text when it is done."""
        first, *rest = self.results.summary(run, screen.symbols, width)
        return Text.assemble((first, _BOLD), *((f"\n{line}", _DIM) for line in rest))


def _head(run: Run, screen: Screen, seconds: float) -> Text:
    """Return the lines above a run's text."""
    moments, symbols = run.until(seconds), screen.symbols
    numbers = [symbols.ellipsis, ""]
    if moments:
        last = moments[-1]
        parts = (f"{symbols.tau} {last.tau:.2f}", f"{last.tokens} tok")
        numbers = [f"{last.tokens_per_second:.1f} tok/s", symbols.dot.join(parts)]
    return Text.assemble((run.name, _BOLD), *((f"\n{line}", _DIM) for line in numbers))


def _text(run: Run, screen: Screen, seconds: float) -> Text:
    """Return a run's text in the styles and the brackets of its sources."""
    if not run.reply.text and seconds >= run.seconds:
        return Text("(an empty reply)", _DIM)
    text, pieces = Text(), pieces_of(run.until(seconds))
    for source, part in groupby(pieces, key=lambda piece: piece.source):
        opening, closing = screen.brackets.get(source, ("", ""))
        text.append(f"{opening}{clean(text_of([*part]))}{closing}", screen.styles[source])
    return text
