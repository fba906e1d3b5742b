"""One way to draft: how far its guesses are accepted, what its steps take, and a trial of it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial

_MEMORY = 64  # steps that the averages of a way reach back
_TIMED = 15  # steps of which the middle time is taken
_FEW, _MANY = 8, 32  # tokens to catch up with: so few take no time, so many say what each takes
_CATCH_UP = 0.004  # plain steps for each token that a drafter has not followed, before any was seen

FIRST_INTERVAL = 128
"""A way that is not the fastest is tried again after so many tokens, then after twice as many."""

LEAST_ROOM = 8
"""Where fewer tokens than this may follow, trees are cut, and say little of their ways."""


@dataclass(eq=False)
class Way:
    """One way to draft, and what is known of its steps. Times are in plain steps: the seconds of a
    forward over one token.

    Args:
        name: of the method.
        width: nodes of its trees, the root included; a mean.
        overhead: what its steps take beside the forward: the middle of the last ones, since
            whatever else the machine does only adds to some of them.
        catch_up: what it takes for each token that it has not followed.

    Attributes:
        reach: by depth, from 1: the share of the steps that accepted so deep.
        tokens: that a step is expected to emit.
        steps: how many were seen.
        due: it is tried again after so many tokens in all.
        interval: how many tokens after its last trial that is.
    """

    name: str
    width: float = 1.0
    overhead: float = 0.0
    catch_up: float = _CATCH_UP
    reach: list[float] = field(default_factory=list)
    tokens: float = 1.0
    steps: int = 0
    due: int = 0
    interval: int = FIRST_INTERVAL
    _overheads: deque[float] = field(default_factory=partial(deque, maxlen=_TIMED))

    def expect(self, width: int, overhead: float) -> None:
        """Take a width and an overhead for those to expect, before any step."""
        self.width, self.overhead = width, overhead

    def learn(self, accepted: int, drafted: int, width: int, overhead: float, missed: int) -> None:
        """Learn from a step.

        Args:
            accepted: tokens of the way's own tree.
            drafted: the depth of that tree.
            width: its nodes.
            overhead: what the step took beside the forward.
            missed: tokens that the drafter had to catch up with before it.
        """
        self.steps += 1
        share = 1 / min(self.steps, _MEMORY)
        self.reach += [0.0] * (drafted - len(self.reach))
        for depth, reached in enumerate(self.reach):
            self.reach[depth] = reached + share * ((depth < accepted) - reached)
        self.tokens = 1 + sum(self.reach)
        self.width += share * (width - self.width)
        if missed < _FEW:
            self._overheads.append(overhead)
            times = sorted(self._overheads)
            self.overhead = times[(len(times) - 1) // 2]
        elif missed >= _MANY and len(self._overheads) > 1:
            paid = max(overhead - self.overhead, 0.0) / missed
            self.catch_up += (paid - self.catch_up) / 2


@dataclass
class Trial:
    """A way that is being tried.

    Args:
        way: which one.
        left: the steps that are left of it.
        may_lose: it ends where it has cost so many plain steps.
        lost: what it has cost so far.
    """

    way: Way
    left: int
    may_lose: float
    lost: float = 0.0
