"""An arm of drafter selection: how far its guesses are accepted, what its steps take; its trial."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

_MEMORY = 64  # steps that the averages of a reply reach back
_LONG_MEMORY = 1024  # steps that those of all replies reach back
_PRIOR_STEPS = 16  # that these count for when a reply begins
_LOST = 4.0  # plain steps, after which a reply is another than most
_DOUBT = 3  # steps that are supposed to have accepted nothing, where few were seen
_TIMED = 15  # steps of which the middle time is taken
_FEW, _MANY = 8, 32  # tokens to catch up with: so few take no time, so many say what each takes
_CATCH_UP = 0.004  # plain steps for each token that a drafter must read, before any was seen

FEW_STEPS = 16
"""An arm of which fewer steps were seen is hardly known."""

FIRST_INTERVAL = 128
"""An arm that is not the fastest is tried again after so many tokens, then after twice as many."""

_KNOWN_INTERVAL = 512
"""The same, where it is known beforehand what an arm gives."""

LEAST_ROOM = 8
"""Where fewer tokens than this may follow, trees are cut, and say little of their arms."""


@dataclass
class _Reach:
    """How deep steps accept, as an average.

    Args:
        shares: by depth, from 1: the share of the steps that accepted so deep.
        steps: how many the shares are known from.
    """

    shares: list[float] = field(default_factory=list)
    steps: int = 0

    def count(self, accepted: int, drafted: int, memory: int) -> None:
        """Count a step that drafted so deep and accepted so many; the average reaches back so many
        steps.
        """
        self.steps += 1
        self.shares += [0.0] * (drafted - len(self.shares))
        for depth, share in enumerate(self.shares):
            self.shares[depth] += ((depth < accepted) - share) / min(self.steps, memory)

    def believed(self, most: int) -> _Reach:
        """Return a copy that counts for so many steps at most."""
        return _Reach([*self.shares], min(self.steps, most))


@dataclass(eq=False)
class Arm:
    """One drafter among which one is selected, or drafting nothing, and what is known of its steps.
    Times are in plain steps: the seconds of a forward over one token.

    A reply begins with what the arm gave in most replies, and what it gives in this one counts more
    and more; where the arm has lost much in this one, this one alone counts.

    Args:
        name: of the method.
        width: nodes of its trees, the root included; a mean.
        overhead: what its steps take beside the forward: the middle of the last ones, since
            whatever else the machine does only adds to some of them.
        catch_up: what it takes for each token that its drafter must read before it guesses.

    Attributes:
        tokens: that a step is expected to emit.
        steps: how many were seen.
        is_foreseen: whether something was known of it before any was seen.
        due: it is tried again after so many tokens in all.
        interval: how many tokens after its last trial that is.
    """

    name: str
    width: float = 1.0
    overhead: float = 0.0
    catch_up: float = _CATCH_UP
    tokens: float = 1.0
    steps: int = 0
    is_foreseen: bool = False
    due: int = 0
    interval: int = FIRST_INTERVAL
    _usual: _Reach = field(default_factory=_Reach)  # in all replies
    _here: _Reach = field(default_factory=_Reach)  # in this one alone
    _now: _Reach = field(default_factory=_Reach)  # what is believed in this one
    _lost: float = 0.0
    _overheads: deque[float] = field(default_factory=partial(deque, maxlen=_TIMED))

    @property
    def reach(self) -> list[float]:
        """By depth, from 1: the share of the steps that is expected to accept so deep."""
        return self._now.shares

    @property
    def known_steps(self) -> int:
        """How many steps were seen, and what is foreseen counts for."""
        return self._usual.steps

    @property
    def cautious_tokens(self) -> float:
        """The tokens of a step; of a hardly known arm, had a few steps more accepted nothing."""
        doubt = _DOUBT if self.known_steps < FEW_STEPS else 0
        return (self.tokens * self.known_steps + doubt) / (self.known_steps + doubt)

    @property
    def optimistic_tokens(self) -> float:
        """The tokens of a step, had one step more accepted all that it drafted; of an arm of which
        nothing is known, infinitely many.
        """
        steps = self.known_steps
        return (self.tokens * steps + 1 + len(self.reach)) / (steps + 1) if steps else math.inf

    def expect(self, width: float, overhead: float, reach: Sequence[float] = ()) -> None:
        """Take a width, an overhead and a reach for those to expect, before any step; an empty
        reach is not known.
        """
        self.width, self.overhead = width, overhead
        if reach:
            self._usual = _Reach([*reach], _PRIOR_STEPS)
            self.due, self.is_foreseen = _KNOWN_INTERVAL, True
            self.begin_reply()

    def begin_reply(self) -> None:
        """Expect what most replies gave."""
        self._here, self._lost = _Reach(), 0.0
        self._believe(self._usual.believed(_PRIOR_STEPS))

    def lose(self, lost: float) -> None:
        """Count what a step of this reply took longer than plain decoding would have; what was
        gained is negative.
        """
        self._lost += lost
        if self._lost > _LOST and self._now.steps > self._here.steps:
            self._believe(self._here.believed(_MEMORY))

    def learn(self, accepted: int, drafted: int, width: int, overhead: float, missed: int) -> None:
        """Learn from a step.

        Args:
            accepted: tokens of the arm's own tree.
            drafted: the depth of that tree.
            width: its nodes.
            overhead: what the step took beside the forward.
            missed: tokens that the drafter had to read before it.
        """
        self.steps += 1
        self._usual.count(accepted, drafted, _LONG_MEMORY)
        self._here.count(accepted, drafted, _MEMORY)
        self._now.count(accepted, drafted, _MEMORY)
        self._believe(self._now)
        self.width += (width - self.width) / min(self._usual.steps, _MEMORY)
        if missed < _FEW:
            self._overheads.append(overhead)
            times = sorted(self._overheads)
            self.overhead = times[(len(times) - 1) // 2]
        elif missed >= _MANY and len(self._overheads) > 1:
            paid = max(overhead - self.overhead, 0.0) / missed
            self.catch_up += (paid - self.catch_up) / 2

    def _believe(self, reach: _Reach) -> None:
        self._now, self.tokens = reach, 1 + sum(reach.shares)


@dataclass
class Trial:
    """An arm that is being tried.

    Args:
        arm: which one.
        left: the steps that are left of it.
        may_lose: it ends where it has cost so many plain steps.
        lost: what it has cost so far.
    """

    arm: Arm
    left: int
    may_lose: float
    lost: float = 0.0
