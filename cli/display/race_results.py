"""What came of a race, in words: whose text differs, how fast each was, why one drafted nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nfox.controls import sanitize

from .gain import is_disturbed
from .reply_stats import duration, join_fitting
from .steps import visible_text
from .theme import Symbols

if TYPE_CHECKING:
    from nfox.race import Race, Run


class RaceResults:
    """Says what came of a race.

    Args:
        race: the race, complete or not.
        tokenizer: of the target.
    """

    def __init__(self, race: Race, tokenizer: Any) -> None:
        self.race = race
        self._tokenizer = tokenizer

    def table(self, symbols: Symbols) -> list[str]:
        """Return the numbers of the race as lines, under a line of headings."""
        head = ("method", "place", "time", "tok/s", symbols.tau, "tokens", "speed-up", "text")
        rows = [head, *(self._row(run, symbols) for run in self.race.runs)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]

    def texts(self) -> dict[str, list[str]]:
        """Return the names of the methods by what they answered."""
        answers: dict[str, list[str]] = {}
        for run in self.race.runs:
            if run.moments:
                answers.setdefault(sanitize(run.reply.text), []).append(run.name)
        return answers

    def summary(self, run: Run, symbols: Symbols, width: int) -> list[str]:
        """Return what came of a run as lines, the first of them within some cells: its place, its
        name, its time, and its speed as a multiple of plain decoding's.
        """
        speedup = self.race.speedup(run)
        compared = speedup is not None and run is not self.race.reference
        parts = (
            f"#{self.race.place(run)} {run.name}",
            duration(run.seconds),
            f"{speedup:.2f}x" if compared else "",
            f"{run.reply.stats.tokens} tok",
        )
        return [join_fitting(parts, width, symbols.dot), *self._words(run, symbols)]

    def verdict(self, run: Run, symbols: Symbols) -> str:
        """Return whether a run's text is that of the reference, and if not, where they part and
        why; of a race that was stopped, how far the run came.
        """
        reference = self.race.reference
        if not run.is_complete:
            return "stopped" if run.moments else "not begun"
        if run is reference:
            return "the reference"
        if not reference.is_complete:
            return "done"
        index = self.race.index_of_parting(run)
        if index is None:
            return f"identical to {reference.name}"
        own, other = (
            visible_text(ids[index], self._tokenizer, symbols) if index < len(ids) else "the end"
            for ids in (run.reply.ids, reference.reply.ids)
        )
        words = f"differs from token {index + 1} on: {own}, {reference.name} says {other}"
        if self.race.follows_drafts:
            return f"{words} (its acceptance allows that)"
        if run.parting is None:
            return words
        return f"{words} ({'a near-tie' if run.parting.is_near_tie else 'no near-tie: a bug'})"

    def _row(self, run: Run, symbols: Symbols) -> tuple[str, ...]:
        """Return a line of the table."""
        stats, speedup = run.reply.stats, self.race.speedup(run)
        if not run.moments:
            return (run.name, *"------", self.verdict(run, symbols))
        return (
            run.name,
            str(self.race.place(run)) if run.is_complete else "-",
            duration(run.seconds),
            f"{stats.tokens_per_second:.1f}",
            f"{stats.tau:.2f}",
            str(stats.tokens),
            "-" if speedup is None else f"{speedup:.2f}x",
            "; ".join(self._words(run, symbols)),
        )

    def _words(self, run: Run, symbols: Symbols) -> list[str]:
        """Return the verdict, why nothing was drafted, and that a speed-up cannot be."""
        idle = [f"drafted nothing: {run.idle}"] if run.idle else []
        stats, speedup = run.reply.stats, self.race.speedup(run) or 0.0
        if is_disturbed(speedup, stats.steps, stats.tau):
            idle.append("other programs ran meanwhile: so much cannot be gained")
        return [self.verdict(run, symbols), *idle]
