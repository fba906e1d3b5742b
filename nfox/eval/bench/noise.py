"""What figures of a benchmark may change by though nothing else did."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from nfox.eval.bench.figures import Row, RowBase

MARGIN = 0.05
"""The share by which bounds of speed-ups may lie apart. Bounds are of one run, whose prompts and
rounds are drawn anew. What differs between runs (the clock, other processes, where memory lies) is
in a baseline as far as it was made of several; 5 % is for the rest."""
SPEEDUP_NOISE = 0.15
"""The share by which a speed-up over all prompts may differ between runs of the same prompts. Its
bounds are much wider, since they draw the prompts anew, which here are the same; three runs on one
machine differed by 4 to 7 %."""
TAU_NOISE = 0.03
"""The share by which tau may differ though settings and prompts are the same: how much is drafted
depends on costs that are measured at load, and in bf16 near-ties fall either way."""
_REPLY_NOISE = 0.25
"""After a near-tie a reply is another text, a quarter easier or harder to guess: in few prompts one
such reply is more than `TAU_NOISE`."""
FEWEST = 6
"""The number of conversations, of all rounds, that bounds need. The noise of n of them has one sign
in 2 / 2^n of cases, and then so has whatever is drawn anew from them: from 6 on, fewer than the 5 %
of bounds. Where the prompts of two results differ, rounds of one prompt count once."""
BOUNDED = ("speedup", "efficiency")
"""The figures that have bounds."""


@dataclass(frozen=True)
class Interval:
    """A figure and its bounds, all three the same where no bounds are known.

    Args:
        value: the figure.
        low: the lower bound.
        high: the upper bound.
    """

    value: float
    low: float
    high: float

    def disjoint(self, other: Interval) -> bool:
        """Return whether no value lies within both intervals; a bound that is equal does."""
        return self.high < other.low or other.high < self.low


def interval(row: Row, figure: str) -> Interval | None:
    """Return a figure of a row with its bounds; None if the figure is not known.

    The bounds of the efficiency are those of the speed-up, divided by tau.
    """
    value: float | None = getattr(row, figure)
    if figure not in BOUNDED:
        return None if value is None else Interval(value, value, value)
    tau = row.tau if figure == "efficiency" else 1
    if value is None or row.speedup_low is None or row.speedup_high is None or not tau:
        return None
    return Interval(value, row.speedup_low / tau, row.speedup_high / tau)


def enough(row: RowBase, rounds: int) -> bool:
    """Return whether a row is of enough conversations for its bounds to say something."""
    return row.prompts * rounds >= FEWEST


def tau_noise(row: RowBase) -> float:
    """Return the share by which tau may change though settings and prompts are the same."""
    return TAU_NOISE + _REPLY_NOISE / max(row.prompts, 1)


def shares_differ(old: float, old_count: int, new: float, new_count: int) -> bool:
    """Return whether two shares differ by more than 1.96 standard errors of their difference.

    Args:
        old: a share of conversations, from 0 to 1.
        old_count: of how many; rounds do not count, since they say the same once more.
        new: the other share.
        new_count: of how many.
    """
    both = (old * old_count + new * new_count) / max(old_count + new_count, 1)
    variance = both * (1 - both) * (1 / max(old_count, 1) + 1 / max(new_count, 1))
    return abs(new - old) > 1.96 * sqrt(variance)


def most_overhead(overhead: float, margin: float) -> float:
    """Return the overhead at which steps are longer by `margin` though only the overhead grew.

    Args:
        overhead: share of a step's time, before.
        margin: share by which a step becomes longer.
    """
    return 1 - (1 - overhead) / (1 + margin)
