"""What forwards cost now: measured when a model is loaded, and corrected by the steps that follow.

A machine that is busy while a model is loaded would otherwise decide for a whole conversation how
much is drafted.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from statistics import median
from weakref import WeakKeyDictionary

from nfox.decoding.costs import WIDTHS, Costs, measure_costs
from nfox.decoding.drafter import Drafter
from nfox.decoding.generate import Step
from nfox.decoding.target import Target
from nfox.decoding.threads import ThreadChoice

ENOUGH_STEPS = 4
"""So many steps of one width must be seen for their least time to be believed: noise only adds to a
time."""

_TIME_LIMIT = 0.2  # seconds of measuring again
_MUCH_SLOWER = 1.5  # than they were: the middle one of a reply's steps of a width
_CHANGE = 0.15  # by which the ratio t(N)/t(1) of some width must differ for a new plan


class RunningCosts:
    """The costs of a target's forwards, which follow the steps that are made.

    Args:
        at_load: as they were measured when the model was loaded.
        target: the model.
        threads: chooses anew how many threads there are, where steps take much longer than they
            did; None leaves them as they are.

    Attributes:
        at_load: as they were measured when the model was loaded.
        now: as they are.
    """

    def __init__(self, at_load: Costs, target: Target, threads: ThreadChoice | None = None) -> None:
        self.threads = threads
        self.at_load = at_load
        self.now = at_load
        self.target = target
        self._planned_for = WeakKeyDictionary[Drafter, Costs]()
        self._times: dict[int, list[float]] = {}  # by width, of the steps since the last update
        self._replies = 0

    def use_target(self, target: Target) -> None:
        """Take another target, which costs what the last one does until steps say otherwise."""
        self.target = target
        if self.threads:
            self.threads.target = target

    def observed(self, steps: Iterator[Step]) -> Iterator[Step]:
        """Yield steps; note what their forwards took."""
        for step in steps:
            self._times.setdefault(len(step.tree), []).append(step.times.target)
            yield step

    def built(self, drafter: Drafter) -> None:
        """Note that a drafter was built with the costs as they are."""
        self._planned_for[drafter] = self.now

    def plan(self, drafter: Drafter) -> None:
        """Let a drafter choose how much it drafts, where forwards cost something else now than when
        it last chose. One that is not known is taken to have chosen when the model was loaded.
        """
        costs = self.update()
        if differ(costs, self._planned_for.setdefault(drafter, self.at_load)):
            drafter.plan(costs)
            self._planned_for[drafter] = costs

    def update(self) -> Costs:
        """Return the costs after the steps since the last update.

        A width that was used enough is believed, and the others change as it did. Steps say nothing
        of forwards that are wider than what is drafted: after 1, 2, 4, 8, ... replies these are
        measured again, if that takes no time or if nothing was drafted, and the faster of both
        measurements is believed, since steps will correct what is too fast, but never what keeps a
        method from drafting.
        """
        if not self._times:
            return self.now
        recent = {n: _least(t) for n, t in self._times.items() if len(t) >= ENOUGH_STEPS}
        is_slow = any(
            median(self._times[n]) > _MUCH_SLOWER * self.now.forward_seconds(n) for n in recent
        )
        is_idle, self._times = set(self._times) == {1}, {}
        self._replies += 1
        if self.threads and self.threads.choose_again(is_slow=is_slow):
            self.now = measure_costs(self.target, time_limit=_TIME_LIMIT)
            return self.now
        changes = [time / self.now.forward_seconds(n) for n, time in recent.items()]
        change = median(changes) if changes else 1.0
        seconds = {n: time * change for n, time in self.now.seconds.items()}
        measured_once = change * sum(map(self.now.forward_seconds, WIDTHS))
        is_cheap = 2 * measured_once < _TIME_LIMIT  # each width at least twice
        if (is_idle or is_cheap) and self._replies.bit_count() == 1:
            measured = measure_costs(self.target, time_limit=_TIME_LIMIT)
            seconds = {n: min(time, measured.forward_seconds(n)) for n, time in seconds.items()}
        seconds |= recent
        widths = sorted(seconds, reverse=True)  # nothing narrower takes more: noise only adds
        least = accumulate((seconds[n] for n in widths), min)
        self.now = Costs(dict(sorted(zip(widths, least, strict=True))))
        return self.now


def _least(times: list[float]) -> float:
    """Return the least time of ENOUGH_STEPS steps, the middle one where there are more of them: the
    least of all would be the less, the more often a width is used.
    """
    groups = [times[i : i + ENOUGH_STEPS] for i in range(0, len(times), ENOUGH_STEPS)]
    return median(min(group) for group in groups if len(group) == ENOUGH_STEPS)


def differ(costs: Costs, others: Costs) -> bool:
    """Return whether another plan may pay with other costs: wide forwards take another multiple of
    the time of a forward over one token, or that time is another one.
    """
    first, other_first = costs.forward_seconds(1), others.forward_seconds(1)
    ratios = [first / other_first] + [
        costs.forward_seconds(n) / first / (others.forward_seconds(n) / other_first)
        for n in others.seconds
    ]
    return any(not 1 / (1 + _CHANGE) < ratio < 1 + _CHANGE for ratio in ratios)
