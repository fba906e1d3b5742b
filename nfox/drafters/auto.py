"""The fastest of the other methods, or plain decoding, chosen anew in every step.

What each gives is seen in its own steps: how deep its guesses are accepted, and what drafting and
wide forwards take (`nfox.drafters.common.selector`). Guesses that take no time to make, those of
the text itself, are made in every step and judged by what follows even if they are not tried; where
they promise enough they are scored alone, or in one tree with a drafter's.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from typing_extensions import override

from nfox.counting import counted
from nfox.decoding.costs import Costs, sample_cache, time_call
from nfox.decoding.drafter import Context
from nfox.decoding.rules import make_rule
from nfox.decoding.target import Target
from nfox.decoding.tree import TokenTree
from nfox.drafters.common.arm import LEAST_ROOM, Arm
from nfox.drafters.common.free_method import FreeMethod
from nfox.drafters.common.method import DrafterInputs, Method, Options, option
from nfox.drafters.common.selector import DrafterSelector
from nfox.drafters.none import Autoregressive
from nfox.errors import NfoxError, UsageError

log = logging.getLogger(__name__)

_RECENT = 64  # steps that `describe` speaks of
_PACE = 9  # steps whose middle one says how fast the machine is now
_TIMED, _TIME_LIMIT = 4, 0.1  # calls of each drafter, seconds
_NAMED = 3  # methods that a line names
_BESIDE = "+"  # between the names of methods


@dataclass(frozen=True)
class AutoOptions(Options):
    """What a person can set, by `-o methods=spec+lookup`."""

    methods: str = option("", "the ones to choose from, with + between; by default all ready ones")


@dataclass(frozen=True)
class _Proposal:
    """What was proposed last.

    Args:
        arm: whose tree was proposed, alone or with other guesses beside it; None for these alone.
        own: that tree.
        missed: the tokens that its drafter had to read first.
        is_whole: whether it was not cut by what may still follow.
    """

    arm: Arm | None
    own: TokenTree
    missed: int
    is_whole: bool


class Auto(Method):
    """Let the method draft that emits the most tokens per second, as far as is known.

    Where the text depends on what is drafted (rejection and typical acceptance above temperature 0)
    the first method drafts throughout, so that one seed gives one text while that method's plan is
    the same, whatever the machine does during a reply.

    Args:
        target: for which they draft.
        others: by name, the best first.
        costs: the seconds of a target forward over N tokens; None if they were not measured.
    """

    summary = "the fastest of the others or plain decoding, chosen as it goes"
    rank = 100
    chooses = True
    options = AutoOptions

    def __init__(
        self, target: Target, others: Mapping[str, Method], costs: Costs | None = None
    ) -> None:
        self.target = target
        self.others = dict(others)
        free = (other for other in others.values() if isinstance(other, FreeMethod))
        self._free = next(free, None)
        drafters = {name: other for name, other in others.items() if other is not self._free}
        self._drafters = {Arm(name): other for name, other in drafters.items()}
        self._plain = Arm(Autoregressive.method_name(), catch_up=0.0)
        takes_trees = target.proposals == "trees"
        self.selector = DrafterSelector(self._plain, list(self._drafters), takes_trees=takes_trees)
        self._last: _Proposal | None = None
        self._paces = deque[float](maxlen=_PACE)  # seconds of plain steps
        self._recent = deque[str](maxlen=_RECENT)
        if costs:
            self.selector.use_costs(costs)
            self._time_drafters(costs.forward_seconds(1))

    @override
    @classmethod
    def build(cls, inputs: DrafterInputs, options: AutoOptions) -> Auto:
        wanted = list(filter(None, options.methods.split(_BESIDE))) or list(inputs.others)
        for name in wanted:
            if name not in inputs.others:
                known = f"these are: {', '.join(inputs.others)}; it decodes plainly in any case"
                raise UsageError(f"{name!r} is no method that drafts for this model", known)
        built: dict[str, Method] = {}
        for name in filter(wanted.__contains__, inputs.others):
            try:
                built[name] = inputs.others[name]()
            except NfoxError as error:
                if inputs.strict or options.methods:
                    raise
                log.warning("%s is left out: %s", name, error.message)
        return cls(inputs.model.target, built, inputs.costs)

    def _time_drafters(self, plain_seconds: float) -> None:
        """Learn what drafting takes at least, before any of it is tried."""
        context = Context(sample_cache(self.target), 0, [], [], LEAST_ROOM, make_rule())
        for arm, drafter in self._drafters.items():
            propose = partial(drafter.propose, context)
            times: list[float] = []
            while len(times) < _TIMED and sum(times) < _TIME_LIMIT:  # the first call is slower
                times.append(time_call(propose, self.target.output_device))
            expected, reach = drafter.forecast
            width = expected if reach else len(propose())
            arm.expect(width, min(times) / plain_seconds, reach)

    @override
    def plan(self, costs: Costs) -> None:
        for drafter in self.others.values():
            drafter.plan(costs)
        self._paces.clear()
        self.selector.use_costs(costs)

    @override
    def rewind(self, length: int) -> None:
        """Begin another reply; what was learned of the methods stays."""
        for drafter in self.others.values():
            drafter.rewind(length)
        self._last = None
        self.selector.begin_reply()

    @override
    def propose(self, context: Context) -> TokenTree:
        if context.rule.follows_drafts:
            tree = self._first(context)
        else:
            self._learn(context)
            tree = self._choose(context)
        self._recent.append(self.choice)
        return tree

    def _first(self, context: Context) -> TokenTree:
        """Return the first method's tree."""
        self.choice, first = next(iter(self.others.items()), (self._plain.name, None))
        return first.propose(context) if first else TokenTree.chain(context.root)

    def _learn(self, context: Context) -> None:
        """Learn from what became of the last tree, and from the text."""
        last, times, path = self._last, context.times, context.path
        if last is None or times is None:
            return
        forward = self.selector.forward_cost(len(context.target_tokens))
        self._paces.append(times.target / forward)
        pace = sorted(self._paces)[len(self._paces) // 2] or 1.0
        overhead = (times.total - times.target) / pace
        self.selector.count(last.arm, len(path), forward + overhead)
        if last.arm and last.is_whole:
            own, accepted = last.own, sum(node < len(last.own) for node in path) - 1
            last.arm.learn(accepted, max(own.depths), len(own), overhead, last.missed)

    def _choose(self, context: Context) -> TokenTree:
        """Return the tree of the arm that is picked, or of free guesses, or of both."""
        root = context.root
        unread = {arm: drafter.unread_count(context) for arm, drafter in self._drafters.items()}
        missed = {self._plain: 0, **unread}
        arm = self.selector.pick(missed, context.max_depth)
        guess, reach = self._free.guess(context) if self._free else ((), ())
        alone, beside = self.selector.best_lengths(arm, reach)
        if self._free and alone:
            self.choice, tree = self._free.method_name(), TokenTree.chain(root, guess[:alone])
            self._last = _Proposal(None, tree, 0, is_whole=False)
            return tree
        self.choice, tree = arm.name, self._ask(arm, context)
        read = missed[arm] if len(tree) > 1 else 0  # one that cannot guess may not read either
        self._last = _Proposal(arm, tree, read, is_whole=context.max_depth >= LEAST_ROOM)
        if self._free and beside:
            self.choice += _BESIDE + self._free.method_name()
            tree = tree.with_paths([guess[:beside]])
        return tree

    def _ask(self, arm: Arm, context: Context) -> TokenTree:
        """Return an arm's tree. Its drafter sees what became of its own last tree, if that was in
        the last step, and of no other.
        """
        if arm is self._plain:
            return TokenTree.chain(context.root)
        last = self._last
        if last is None or last.arm is not arm:
            context = replace(context, path=(), target_tokens=())
        elif len(last.own) < len(context.target_tokens):
            size = len(last.own)
            path = [node for node in context.path if node < size]
            context = replace(context, path=path, target_tokens=context.target_tokens[:size])
        return self._drafters[arm].propose(context)

    @property
    @override
    def idle(self) -> str:
        return "nothing else pays" if {*self._recent} == {self._plain.name} else ""

    @override
    def describe(self) -> str:
        counts = Counter(self._recent).most_common()
        if not counts:
            return ""  # the steps to come show it
        if self.idle:
            return f"plain decoding at present, since {self.idle}; tried again later"
        steps = ", ".join(f"{name} {count}" for name, count in counts)
        return f"of the last {counted(len(self._recent), 'step')}: {steps}"

    @override
    def in_words(self) -> str:
        names = [arm.name for arm in self._drafters] + ["repeated text"] * (self._free is not None)
        if not names:
            return "plain decoding"
        if len(names) == 1:
            return f"guesses ahead by {names[0]} where that is faster"
        *first, last = names
        many = f"{len(names)} methods"
        among = f"{', '.join(first)} and {last}" if len(names) <= _NAMED else many
        return f"guesses ahead by the fastest of {among}"

    @override
    def explain(self) -> list[str]:
        selector = self.selector
        lines = [self.describe()]
        if selector.is_locked:
            lost = "what was tried has lost too much: plain decoding until more tokens have come"
            lines.append(lost)
        others = [arm for arm in selector.arms if arm is not self._plain]
        seen_first = sorted(
            others, key=lambda arm: selector.speed(arm) * bool(arm.steps), reverse=True
        )
        lines += map(self._explain, seen_first)
        if self._free:
            free = "its guesses take no time, and are used wherever they promise enough"
            lines.append(f"{self._free.method_name()}: {free}")
        return lines

    def _explain(self, arm: Arm) -> str:
        """Return what is known of an arm, in a line."""
        time = f"{self.selector.step_cost(arm):.2f} times as long as a plain one"
        is_next = arm is self.selector.fastest or arm.due <= self.selector.tokens
        again = "" if is_next else f"; again in {counted(arm.due - self.selector.tokens, 'token')}"
        if not arm.steps:
            return f"{arm.name}: not tried yet; a step takes {time}"
        speedup = self.selector.speed(arm) / self.selector.speed(self._plain)
        return (
            f"{arm.name}: {speedup:.2f}x; {arm.tokens:.2f} tokens a step, which takes {time} "
            f"({counted(arm.steps, 'step')} seen){again}"
        )


METHOD = Auto
