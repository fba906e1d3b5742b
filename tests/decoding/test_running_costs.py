"""Costs follow the steps, so that one busy moment does not decide for a conversation."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import tiny

from nfox.decoding import running_costs
from nfox.decoding.costs import Costs
from nfox.decoding.drafter import StepTimes
from nfox.decoding.generate import Step
from nfox.decoding.running_costs import RunningCosts, differ
from nfox.decoding.tree import TokenTree
from nfox.decoding.tree_shapes import TreeShape
from nfox.decoding.verify import Verdict
from nfox.drafters.common.heads import HeadsDrafter
from nfox.drafters.lookup import Lookup
from nfox.drafters.spec import Speculative

TRUE = Costs({1: 1.0, 2: 1.1, 4: 1.2, 8: 1.4, 16: 2.0, 32: 4.0})
BUSY = Costs({1: 2.0, 2: 4.0, 4: 8.0, 8: 16.0, 16: 32.0, 32: 64.0})


def steps(*widths: int, costs: Costs = TRUE, noise: float = 0.0) -> Iterator[Step]:
    """Yield steps of trees of these widths, every second one with noise."""
    for number, width in enumerate(widths):
        seconds = costs.forward_seconds(width) + noise * (number % 2)
        tree = TokenTree.chain(0, range(1, width))
        times = StepTimes(0.0, seconds, 0.0, 0.0, 0.0)
        yield Step((1,), ("bonus",), tree, Verdict([0], 1, [1] * width), times)


def running(
    at_load: Costs, monkeypatch: pytest.MonkeyPatch, measured: Costs = TRUE
) -> RunningCosts:
    monkeypatch.setattr(running_costs, "measure_costs", lambda target, time_limit: measured)
    return RunningCosts(at_load, tiny.target())


def test_a_width_that_was_used_is_believed_and_the_others_change_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    costs = running(BUSY, monkeypatch)
    list(costs.observed(steps(*[8] * 6, noise=9.0)))
    now = costs.update()
    assert now.forward_seconds(8) == TRUE.forward_seconds(8)
    assert now.forward_seconds(1) == BUSY.forward_seconds(1) * 1.4 / 16.0
    assert costs.at_load == BUSY


def test_a_width_that_is_used_often_seems_no_faster_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noise, costs = random.Random(0), running(TRUE, monkeypatch)
    for _ in range(800):
        list(costs.observed(steps(8, costs=Costs({8: noise.random()}))))
    assert 0.1 < costs.update().forward_seconds(8) < 0.3


def test_steps_pass_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    given = list(steps(1, 3, 2))
    assert list(running(TRUE, monkeypatch).observed(iter(given))) == given


def test_a_few_steps_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = running(TRUE, monkeypatch)
    list(costs.observed(steps(8, 8, 8, costs=BUSY)))
    assert costs.update() == TRUE
    assert costs.update() == TRUE  # nor does a reply without steps


def test_nothing_wider_takes_less(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = running(TRUE, monkeypatch)
    list(costs.observed(steps(*[4] * 8, costs=Costs({4: 3.0}))))
    seconds = costs.update().seconds
    assert list(seconds) == sorted(seconds)
    assert list(seconds.values()) == sorted(seconds.values())


def test_where_nothing_is_drafted_wide_forwards_are_measured_again_and_more_and_more_seldom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times: list[int] = []
    costs = running(BUSY, monkeypatch, BUSY)
    for reply in range(1, 20):
        monkeypatch.setattr(
            running_costs,
            "measure_costs",
            lambda target, time_limit, reply=reply: times.append(reply) or BUSY,
        )
        list(costs.observed(steps(*[1] * 8, costs=BUSY)))
        costs.update()
    assert times == [1, 2, 4, 8, 16]
    monkeypatch.setattr(running_costs, "measure_costs", lambda target, time_limit: TRUE)
    for _ in range(13):
        list(costs.observed(steps(*[1] * 8)))
        costs.update()
    assert costs.now == TRUE


def test_what_is_wider_than_what_is_drafted_is_measured_again_where_that_takes_no_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    busy, true = (Costs({n: s / 1e4 for n, s in c.seconds.items()}) for c in (BUSY, TRUE))
    costs = running(busy, monkeypatch, true)
    list(costs.observed(steps(*[1] * 8, *[2] * 8, costs=true)))
    assert costs.update() == true
    list(costs.observed(steps(*[1] * 8, *[2] * 8, costs=true)))
    monkeypatch.setattr(running_costs, "measure_costs", lambda target, time_limit: busy)
    assert costs.update() == true  # the faster of both


def test_a_busy_moment_at_load_is_forgotten_within_a_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    costs, drafter = running(BUSY, monkeypatch), Lookup(is_explicit=False)
    drafter.plan(BUSY)
    assert drafter.gamma == 0
    costs.plan(drafter)
    assert drafter.gamma == 0
    list(costs.observed(steps(*[1] * 8)))
    costs.plan(drafter)
    assert drafter.gamma == TRUE.best_gamma(16) > 0
    explicit = Lookup(3)
    costs.plan(explicit)
    assert explicit.gamma == 3


def test_plans_stay_while_costs_are_the_same_but_for_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Costs] = []
    monkeypatch.setattr(Lookup, "plan", lambda self, costs: plans.append(costs))
    costs, drafter = running(TRUE, monkeypatch), Lookup()
    for factor in (1.0, 1.05, 0.95):
        slower = Costs({n: factor * s for n, s in TRUE.seconds.items()})
        list(costs.observed(steps(*[1] * 8, *[8] * 8, costs=slower)))
        costs.plan(drafter)
    assert not plans
    list(costs.observed(steps(*[1] * 8, *[8] * 8, costs=Costs({1: 1.0, 8: 3.0}))))
    costs.plan(drafter)
    costs.plan(drafter)
    assert len(plans) == 1


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ({1: 1.0, 8: 1.4}, False), ({1: 1.1, 8: 1.5}, False), ({1: 1.3, 8: 1.8}, True),
        ({1: 1.0, 8: 2.0}, True), ({1: 1.0, 8: 1.0}, True),
    ],
)  # fmt: skip
def test_costs_differ_by_their_ratios_and_by_the_first(
    others: dict[int, float], expected: bool
) -> None:
    assert differ(TRUE, Costs(others)) is expected


@pytest.mark.parametrize("method", tiny.methods("llama"))
def test_a_new_plan_between_replies_changes_neither_the_text_nor_what_is_remembered(
    method: str,
) -> None:
    target, prompt = tiny.target(), list(tiny.PROMPT)
    planned, other = (tiny.make(method) for _ in range(2))
    cache, other_cache = target.new_cache(), target.new_cache()
    for costs in (None, TRUE, BUSY, TRUE):
        if costs:
            planned.plan(costs)
            other = tiny.make(method)  # it knows nothing of the past
            other.plan(costs)
            for drafter in (planned, other):  # what was timed may differ
                if isinstance(drafter, HeadsDrafter):
                    drafter.shape, drafter.budget = TreeShape.chain(2), None
                if isinstance(drafter, Speculative):
                    drafter.budget = None
        steps = tiny.run(target, planned, prompt, cache=cache, max_tokens=12)
        again = tiny.run(target, other, prompt, cache=other_cache, max_tokens=12)
        assert tiny.text(steps) == list(tiny.slow("llama", tuple(prompt), 12))
        if isinstance(planned, HeadsDrafter | Speculative):  # the others learn from the past
            assert [step.tree.tokens for step in steps] == [step.tree.tokens for step in again]
        prompt += [*tiny.text(steps), 3, 1, 4]


def test_widths_of_many_trees_do_not_keep_costs_from_being_measured_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []
    fast = Costs({n: 0.001 * seconds for n, seconds in TRUE.seconds.items()})
    costs = running(fast, monkeypatch)
    monkeypatch.setattr(
        running_costs, "measure_costs", lambda target, time_limit: asked.append(target) or fast
    )
    for _ in range(8):
        list(costs.observed(steps(*sorted([*range(2, 60)] * 4), costs=fast)))
        costs.update()
    assert len(asked) == 4  # after 1, 2, 4 and 8 replies
