"""What figures of a benchmark may change by though nothing else did."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from nfox.eval.bench.result import Row

MARGIN = 0.05
"""What the bounds of a speed-up leave out. They are of one run: its prompts and rounds drawn anew.
What differs between runs (the clock, neighbours, where memory lies) is in the baseline as far as it
was made of several; 5 % is for the rest."""
BETWEEN = 0.15
"""What a speed-up over all prompts may differ by between runs of the same prompts. Its bounds are
much wider, since they draw the prompts anew, which here are the same; three runs on one machine
differed by 4 to 7 %."""
TAU = 0.03
"""What tau may change by though settings and prompts are the same: how much is drafted hangs on
costs that are measured at load, and in bf16 near-ties fall either way."""
_REPLY = 0.25
"""After a near-tie a reply is another text, a quarter easier or harder to guess: in few prompts one
such reply is more than `TAU`."""
FEWEST = 6
"""Conversations, of all rounds, that bounds need. The noise of n of them has one sign in 2 / 2^n of
cases, and then so has whatever is drawn anew from them: from 6 on, fewer than the 5 % of bounds.
Where the prompts of two results differ, rounds of one prompt count once."""
BOUNDED = ("speedup", "efficiency")
"""Figures that have bounds; others are known as they are."""


@dataclass(frozen=True)
class Interval:
    """A figure and its bounds, all three the same where none are known.

    Args:
        value: the figure.
        low: the lower bound.
        high: the upper bound.
    """

    value: float
    low: float
    high: float

    def disjoint(self, other: Interval) -> bool:
        """Whether they do not overlap; where bounds are equal, they do."""
        return self.high < other.low or other.high < self.low


def interval(row: Row, name: str) -> Interval | None:
    """Return a figure of a row; None if it cannot be seen."""
    value = row.get(name)
    if name not in BOUNDED:
        return None if value is None else Interval(value, value, value)
    low, high = row.get("speedup_low"), row.get("speedup_high")
    share = row.get("tau") if name == "efficiency" else 1
    if value is None or low is None or high is None or not share:
        return None
    return Interval(value, low / share, high / share)


def enough(row: Row, rounds: int) -> bool:
    """Whether there are enough conversations for bounds."""
    return bool(row["prompts"] * rounds >= FEWEST)


def tau_noise(row: Row) -> float:
    """Return which share of tau is noise where settings and prompts are the same."""
    prompts: int = row["prompts"]
    return TAU + _REPLY / max(prompts, 1)


def shares_differ(was: float, of: int, now: float, of_now: int) -> bool:
    """Whether shares of so many conversations differ; rounds say the same once more."""
    both = (was * of + now * of_now) / max(of + of_now, 1)
    return abs(now - was) > 1.96 * sqrt(both * (1 - both) * (1 / max(of, 1) + 1 / max(of_now, 1)))


def most_overhead(share: float, margin: float) -> float:
    """Return at which share of a step it takes so much longer, the rest being as before."""
    return 1 - (1 - share) / (1 + margin)
