"""Drafter selection: which of several drafters, or none, is the fastest, learned as they are used.

This is a multi-armed bandit, as in BanditSpec (Hou et al. 2025, arXiv 2505.15141). But what an arm
gives changes with the text, a drafter that joins late must read what it missed, and nobody may lose
much against plain decoding. A reply goes on with the arm that is the fastest in it, after what it
was in most replies. Unknown arms are tried in short runs; others that are not the fastest are tried
after twice as many tokens each time. A trial ends once it has cost a plain step, all of a short
reply cost two, and past what may be lost in all decoding is plain until enough tokens have come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nfox.decoding.costs import Costs
from nfox.decoding.running_costs import ENOUGH_STEPS
from nfox.decoding.tree_shapes import MAX_NODES
from nfox.drafters.common.arm import FEW_STEPS, FIRST_INTERVAL, LEAST_ROOM, Arm, Trial

_TRIAL_STEPS = 8
_TRIAL_LOSS = 1.0  # plain steps, at which a trial ends
_REPLY_LOSS, _REPLY_SHARE = 2.0, 0.03  # what trials may cost in a reply: plain steps, and of tokens
_LOSS, _SHARE = 12.0, 0.01  # what trials may cost in all, and what may be lost to plain decoding
_SAVED = 16.0  # plain steps that were gained and may be lost again before that
_LAST_INTERVAL = 2048  # tokens between trials at most
_SOON = 32  # tokens to the next trial of what may be the fastest and was seen rarely
_HYSTERESIS = 1.03  # another arm must promise so many times the speed
_GAIN_OVER_TRIAL = 2.0  # tokens that free guesses must promise to be scored alone in place of one
_REPLY_LENGTH = 64.0  # tokens, before any reply was seen


class DrafterSelector:
    """Chooses between plain decoding and other arms, step by step.

    Args:
        plain: the arm that drafts nothing.
        others: in the order in which they are tried first.
        takes_trees: whether free guesses can stand beside those of an arm.

    Attributes:
        tokens: how many were emitted so far.
    """

    def __init__(self, plain: Arm, others: Sequence[Arm], *, takes_trees: bool = True) -> None:
        self.plain, self.takes_trees = plain, takes_trees
        plain.due = FIRST_INTERVAL  # what it takes was measured just before
        self.arms = (plain, *others)
        self.tokens = 0
        self._ratios = [1.0] * (2 * MAX_NODES + 1)
        self._current = plain
        self._trial: Trial | None = None
        self._lost = 0.0  # against plain decoding, in all; what was gained is negative
        self._tried = 0.0  # by trials, in all
        self._reply_tokens, self._reply_lost, self._reply_tried = 0, 0.0, 0.0  # of this reply
        self._reply_length = _REPLY_LENGTH  # a mean

    def use_costs(self, costs: Costs) -> None:
        """Take other costs of forwards, with which other trees may be drafted than were tried."""
        first = costs.forward_seconds(1)
        self._ratios = [costs.forward_seconds(max(n, 1)) / first for n in range(2 * MAX_NODES + 1)]
        for arm in self.arms[1:]:  # what plain steps take is among these costs
            last_trial = arm.due - arm.interval
            arm.interval = min(arm.interval, max(arm.interval // 2, FIRST_INTERVAL))
            arm.due = last_trial + arm.interval if arm.reach else self.tokens

    def begin_reply(self) -> None:
        """Begin another reply."""
        self._end_trial()
        for arm in self.arms:
            arm.begin_reply()
        if self._reply_tokens:
            self._reply_length += (self._reply_tokens - self._reply_length) / 4
        self._reply_tokens, self._reply_lost, self._reply_tried = 0, 0.0, 0.0

    def forward_cost(self, width: float) -> float:
        """Return what a forward over so many nodes takes, in plain steps."""
        return self._ratios[min(round(width), len(self._ratios) - 1)]

    def step_cost(self, arm: Arm) -> float:
        """Return what a step takes, in plain steps."""
        return self.forward_cost(arm.width) + arm.overhead

    def speed(self, arm: Arm) -> float:
        """Return the tokens that an arm is expected to emit while a plain forward runs."""
        return arm.tokens / self.step_cost(arm)

    @property
    def is_locked(self) -> bool:
        """Whether so much was lost that decoding is to be plain."""
        return self._lost > _LOSS + _SHARE * self.tokens

    @property
    def fastest(self) -> Arm:
        """The fastest arm, as far as is known."""
        return self._current

    @property
    def best_speed(self) -> float:
        """Its speed."""
        return self.speed(self._current)

    def pick(self, missed: Mapping[Arm, int], room: int) -> Arm:
        """Return the arm for the next step: one that is due to be tried, or the fastest.

        Args:
            missed: for each arm, the tokens that its drafter must read before it guesses.
            room: how many tokens may still follow at most.
        """
        if self.is_locked:
            self._end_trial()
            return self.plain
        catching_up = {arm: arm.catch_up * count for arm, count in missed.items()}
        if room:  # the last step drafts nothing, whatever is fast
            self._choose(catching_up, room)
        if self._trial and not self._goes_on(self._trial):
            self._end_trial()
        if not self._trial and room >= LEAST_ROOM:
            self._try_one(catching_up)
        return self._trial.arm if self._trial else self._current

    def best_lengths(self, arm: Arm, reach: Sequence[float]) -> tuple[int, int]:
        """Return how many guesses of a chain to score alone, and how many beside an arm's, as far
        as they promise more than the fastest arm: one of both numbers is 0.

        Args:
            arm: the one that was picked.
            reach: by depth, from 1, how often the guesses of the chain are right so far.
        """
        if self.is_locked:
            return 0, 0
        alone, gain = self._longest(reach, self.plain)
        gain += self._surplus(self.plain)
        is_joined = self.takes_trees and arm is not self.plain
        beside, more = self._longest(reach, arm) if is_joined else (0, 0.0)
        is_trial = self._trial is not None and arm is self._trial.arm
        more += _GAIN_OVER_TRIAL if is_trial else self._surplus(arm)
        return (alone, 0) if gain > more else (0, beside)

    def _surplus(self, arm: Arm) -> float:
        """Return the tokens of a step beyond those that the fastest arm emits in its time."""
        return arm.tokens - self.best_speed * self.step_cost(arm)

    def _longest(self, reach: Sequence[float], arm: Arm) -> tuple[int, float]:
        """Return how many guesses beside those of an arm gain the most tokens, and how many."""
        speed, gain, best = self.best_speed, 0.0, (0, 0.0)
        forwards = self._ratios[min(round(arm.width), MAX_NODES) :]
        known = [*arm.reach[: len(reach)], *[0.0] * (len(reach) - len(arm.reach))]
        for depth, (right, own) in enumerate(zip(reach, known, strict=True), 1):
            gain += right * (1 - own)
            net = gain - speed * (forwards[depth] - forwards[0])
            if net > best[1]:
                best = depth, net
        return best

    def _choose(self, catching_up: Mapping[Arm, float], room: int) -> None:
        """Set the fastest arm for the rest of the reply, as far as is known."""
        rest = min(room, self._reply_length)
        speeds: dict[Arm, float] = {}
        for arm in filter(self._may_use, catching_up):
            seconds = catching_up[arm] + rest * self.step_cost(arm) / arm.cautious_tokens
            speeds[arm] = rest / seconds * (_HYSTERESIS if arm is self._current else 1.0)
        self._current = max(speeds, key=speeds.__getitem__)

    def _may_use(self, arm: Arm) -> bool:
        """Return whether an arm was seen often enough, or has cost little enough in this reply."""
        is_known = arm.steps >= FEW_STEPS or not arm.is_foreseen
        return is_known or self._reply_lost + self._worst(arm) <= _REPLY_LOSS

    def _try_one(self, catching_up: Mapping[Arm, float]) -> None:
        """Begin a trial of the first arm that is due, if what it may cost is left for the reply."""
        due = [arm for arm in self.arms if arm is not self._current and arm.due <= self.tokens]
        for arm in sorted(due, key=lambda one: -one.optimistic_tokens / self.step_cost(one)):
            extra = catching_up[arm]
            steps = ENOUGH_STEPS if arm is self.plain else _TRIAL_STEPS
            least = steps if arm is self.plain else 1  # fewer plain steps would not be believed
            if extra + least * self._worst(arm) <= self._allowance:
                self._trial = Trial(arm, steps, extra + _TRIAL_LOSS)
                break

    def _goes_on(self, trial: Trial) -> bool:
        if trial.arm is self.plain:
            return trial.left > 0
        worst = max(trial.lost, 0.0) + self._worst(trial.arm)
        return trial.left > 0 and trial.lost < trial.may_lose and worst <= self._allowance

    def _worst(self, arm: Arm) -> float:
        """Return what a step costs against the fastest arm, if nothing drafted is accepted."""
        return max(self.step_cost(arm) - 1 / self.best_speed, 0.0)

    @property
    def _allowance(self) -> float:
        """What trials may still cost in this reply."""
        in_reply = _REPLY_LOSS + _REPLY_SHARE * self._reply_tokens
        in_reply -= max(self._reply_lost, self._reply_tried)
        return min(in_reply, _LOSS + _SHARE * self.tokens - self._tried)

    def _end_trial(self) -> None:
        if trial := self._trial:
            self._trial = None
            self._reply_tried += max(trial.lost, 0.0)
            self._tried += max(trial.lost, 0.0)
            arm, interval = trial.arm, min(2 * trial.arm.interval, _LAST_INTERVAL)
            worth_it = self.best_speed * self.step_cost(arm)
            if arm.known_steps < FEW_STEPS and arm.optimistic_tokens > worth_it:
                interval = _SOON
            self._put_off(arm, interval)

    def _put_off(self, arm: Arm, interval: int) -> None:
        arm.interval, arm.due = interval, self.tokens + interval

    def count(self, arm: Arm | None, tokens: int, cost: float) -> None:
        """Count a step of any kind.

        Args:
            arm: the one that was picked; None if something else was done.
            tokens: that it emitted.
            cost: what it took, in plain steps.
        """
        self.tokens += tokens
        self._reply_tokens += tokens
        # A plain step has lost nothing, however long other programs made it.
        lost = 0.0 if arm is self.plain else cost * self.speed(self.plain) - tokens
        self._lost, self._reply_lost = max(self._lost + lost, -_SAVED), self._reply_lost + lost
        if arm and arm is not self.plain:
            arm.lose(lost)
        if self._trial and arm is self._trial.arm:
            self._trial.left -= 1
            self._trial.lost += cost - tokens / self.best_speed
        elif arm is self._current:
            self._put_off(arm, FIRST_INTERVAL)
