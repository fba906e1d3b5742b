"""The selector in simulated worlds: what it costs where nothing pays, whether it finds the best.

Acceptance is drawn from a seed and times are numbers, so nothing here depends on a clock.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from nfox.decoding.costs import Costs
from nfox.drafters.common.arm import Arm
from nfox.drafters.common.guess_record import GuessRecord
from nfox.drafters.common.selector import DrafterSelector

COSTS = Costs({1: 1.0, 2: 1.05, 4: 1.1, 8: 1.25, 16: 1.5, 32: 2.2})
PROMPT = 200


@dataclass
class World:
    """What an arm gives: chains of gamma tokens, each right with a chance, given the one before.

    Args:
        alpha: that chance.
        gamma: tokens of a chain.
        overhead: what a step takes beside the forward, in plain steps.
        catch_up: what each token takes that was not followed.
    """

    alpha: float
    gamma: int
    overhead: float = 0.1
    catch_up: float = 0.002

    def accepted(self, noise: random.Random, room: int) -> int:
        count = 0
        while count < min(self.gamma, room) and noise.random() < self.alpha:
            count += 1
        return count

    def seconds(self, room: int, missed: int = 0) -> float:
        forward = COSTS.forward_seconds(1 + min(self.gamma, room))
        return forward + self.overhead + self.catch_up * missed


PLAIN = World(0.0, 0, 0.0, 0.0)


def selector_of(count: int, expected: Sequence[World] = ()) -> DrafterSelector:
    arms = [Arm(str(number)) for number in range(count)]
    selector = DrafterSelector(Arm("plain", catch_up=0.0), arms)
    selector.use_costs(COSTS)
    for arm, world in zip(arms, expected, strict=False):
        arm.expect(1 + world.gamma, world.overhead)
    return selector


def test_the_last_token_of_a_reply_says_nothing_of_what_is_fast() -> None:
    selector = selector_of(1, [World(0.9, 4)])
    fast, missed = selector.arms[1], dict.fromkeys(selector.arms, 0)
    for _ in range(40):
        fast.learn(4, 4, 5, 0.1, 0)
    assert selector.pick(missed, 20) is fast
    selector.pick(missed, 0)
    assert selector.fastest is fast


def test_free_guesses_that_cannot_stand_beside_others_are_scored_alone() -> None:
    """A target that takes chains scores one or the other."""
    arm = Arm("drafter")
    reach = [0.9] * 8
    for takes_trees in (True, False):
        selector = DrafterSelector(Arm("plain", catch_up=0.0), [arm], takes_trees=takes_trees)
        selector.use_costs(COSTS)
        arm.expect(3, 0.3, [0.5, 0.2])
        selector.pick(dict.fromkeys(selector.arms, 0), 20)
        alone, beside = selector.best_lengths(arm, reach)
        assert takes_trees or (alone and not beside)


def reply(
    selector: DrafterSelector,
    worlds: Sequence[World],
    length: int,
    noise: random.Random,
    slowed: Callable[[], float] = lambda: 1.0,
) -> float:
    """Return what a reply takes, in plain steps; the drafters have not followed the prompt."""
    selector.begin_reply()
    by_arm = dict(zip(selector.arms, (PLAIN, *worlds), strict=True))
    followed, text, total = dict.fromkeys(selector.arms, 0), PROMPT, 0.0
    while length > 0:
        followed[selector.plain] = text
        missed = {arm: text - count for arm, count in followed.items()}
        arm = selector.pick(missed, length - 1)
        world, followed[arm] = by_arm[arm], text
        accepted, seconds = world.accepted(noise, length - 1), world.seconds(length, missed[arm])
        total += seconds
        text, length = text + accepted + 1, length - accepted - 1
        if length > 0:  # a reply's last step is seen by nobody
            width, overhead = 1 + world.gamma, seconds - COSTS.forward_seconds(1 + world.gamma)
            overhead *= slowed()
            selector.count(arm, accepted + 1, selector.forward_cost(width) + overhead)
            arm.learn(accepted, world.gamma, width, overhead, missed[arm])
    return total


def alone(world: World, lengths: Sequence[int], seed: int = 0) -> float:
    """Return what replies take with one arm throughout."""
    noise, total = random.Random(seed), 0.0
    for length in lengths:
        left, missed = length, PROMPT
        while left > 0:
            total += world.seconds(left, missed)
            left, missed = left - world.accepted(noise, left - 1) - 1, 0
    return total


def replies(
    worlds: Sequence[World], lengths: Sequence[int], seed: int = 0, **more: object
) -> list[float]:
    noise, selector = random.Random(seed), selector_of(len(worlds), worlds)
    return [reply(selector, worlds, length, noise, **more) for length in lengths]  # type: ignore[arg-type]


def drawn_worlds(seed: int) -> list[World]:
    """Return one to five worlds of any kind, good and bad."""
    draw = random.Random(seed)
    most = draw.choice([0.1, 0.5, 0.9])
    return [
        World(
            draw.uniform(0, most),
            draw.randint(1, 8),
            draw.choice([0.02, 0.2, 0.6, 1.2]),
            draw.choice([0.0, 0.002, 0.008]),
        )
        for _ in range(draw.randint(1, 5))
    ]


def test_plain_steps_that_other_programs_hold_up_lose_nothing() -> None:
    good = World(0.9, 4)
    selector, noise = selector_of(1, [good]), random.Random(0)
    for _ in range(200):
        selector.count(selector.plain, 1, 5.0)
    assert not selector.is_locked
    for _ in range(4):
        reply(selector, [good], 128, noise)
    assert selector.fastest is selector.arms[1]


MANY = [128] * 100


@pytest.mark.parametrize("seed", range(12))
def test_a_hundred_replies_take_hardly_longer_than_plain_ones_whatever_is_drafted(
    seed: int,
) -> None:
    times = replies(drawn_worlds(seed), MANY, seed)
    assert sum(times) < sum(MANY) / 0.98
    assert max(times) < 128 / 0.9


USELESS = [World(0.02, 8, 0.6), World(0.0, 4, 1.2), World(0.05, 6, 0.1), World(0.1, 2, 0.3)]


def test_where_nothing_pays_trials_become_rare() -> None:
    times = replies(USELESS, MANY)
    lost = [time - 128 for time in times]
    assert sum(lost[50:]) < sum(lost[:50]) / 2
    assert sum(times) < sum(MANY) / 0.99


GOOD = {
    "the first": ([World(0.8, 4, 0.2), World(0.3, 4, 0.1), World(0.5, 3, 0.1)], 0.96),
    "the last": ([World(0.3, 4, 0.1), World(0.5, 3, 0.1), World(0.8, 4, 0.2)], 0.95),
    "one that costs much": ([World(0.4, 4, 0.3), World(0.85, 8, 0.9, 0.008)], 0.94),
    "one that gains little": ([World(0.4, 1, 0.02), World(0.1, 4, 0.3)], 0.95),
    "two alike": ([World(0.7, 4, 0.2), World(0.72, 4, 0.2), World(0.1, 4, 0.1)], 0.95),
    "none": (USELESS, 0.98),
}


@pytest.mark.parametrize("name", GOOD)
def test_it_comes_close_to_the_best_fixed_choice(name: str) -> None:
    worlds, share = GOOD[name]
    best = min(alone(world, MANY) for world in (PLAIN, *worlds))
    taken = sum(sum(replies(worlds, MANY, seed)) for seed in range(3)) / 3
    assert best / taken > share


def test_what_is_fast_from_its_first_steps_is_used_in_short_replies_too() -> None:
    """A few steps that accept most are enough to believe in."""
    short = [24] * 20
    worlds = [World(0.95, 8, 0.5), *[World(0.6, 4, overhead) for overhead in (0.6, 0.8, 0.9)]]
    best = alone(worlds[0], short)
    taken = sum(sum(replies(worlds, short, seed)) for seed in range(5)) / 5
    assert best / taken > 0.85


def test_a_short_reply_takes_two_plain_steps_longer_at_most() -> None:
    for seed in range(40):
        worlds = [World(w.alpha / 4, w.gamma, w.overhead, 0.004) for w in drawn_worlds(seed)]
        for time in replies(worlds, [10] * 6, seed):
            assert time < 12.5, "an eighth of the last step may come to it"


def test_it_follows_when_the_text_changes() -> None:
    noise, good, bad = random.Random(1), World(0.8, 4, 0.2), World(0.1, 4, 0.2)
    selector = selector_of(2, [good, good])
    for worlds in ([good, bad], [bad, good], [bad, bad], [good, bad]):
        times = [reply(selector, worlds, 128, noise) for _ in range(60)]
        best = min(alone(world, [128] * 20) for world in (PLAIN, *worlds)) / 20
        assert sum(times[-20:]) / 20 < best / 0.94
        assert sum(times[:3]) < 3 * 128 * 1.1, "it is not kept for long where it is bad"


def test_times_with_noise_change_little() -> None:
    """Every tenth step is held up for long."""
    worlds, noise = [World(0.3, 4, 0.1), World(0.8, 4, 0.2)], random.Random(2)

    def slowed() -> float:
        return 20.0 if noise.random() < 0.1 else 1.0 + 0.2 * noise.random()

    best = alone(worlds[1], MANY)
    assert best / sum(replies(worlds, MANY, 1, slowed=slowed)) > 0.93


EASY, HARD = World(0.8, 4), World(0.0, 8, 0.3)
FORESEEN = [0.8, 0.64, 0.51, 0.41]  # what a good world gives


def foreseeing(count: int) -> DrafterSelector:
    """Return a selector of arms that are all expected to be good."""
    selector = selector_of(count)
    for arm in selector.arms[1:]:
        arm.expect(5, 0.1, FORESEEN)
    return selector


def test_what_is_foreseen_is_used_at_once() -> None:
    noise = random.Random(0)
    taken = sum(reply(foreseeing(1), [EASY], 32, noise) for _ in range(20))
    assert taken < 1.1 * alone(EASY, [32] * 20)


def test_what_was_foreseen_wrongly_costs_few_steps_and_is_soon_known_better() -> None:
    noise, selector = random.Random(0), foreseeing(1)
    times = [reply(selector, [HARD], 128, noise) for _ in range(40)]
    assert times[0] < 128 + 8
    assert sum(times[-20:]) / 20 < 128 * 1.02


def test_one_bad_reply_does_not_spoil_the_next() -> None:
    """The text of some replies is hard to guess, that of most is not."""
    noise, selector = random.Random(0), foreseeing(1)
    for _ in range(4):
        good = [reply(selector, [EASY], 128, noise) for _ in range(3)]
        bad = reply(selector, [HARD], 128, noise)
        assert sum(good) / 3 < 1.1 * alone(EASY, [128] * 9) / 9
        assert bad < 128 * 1.15


def test_a_way_that_only_pays_while_it_is_tried_is_left() -> None:
    """An adversary: right for its first steps in every reply, and never after."""

    class Lures(World):
        steps = 0

        def accepted(self, noise: random.Random, room: int) -> int:
            self.steps += 1
            return min(4, room) if self.steps % 40 < 8 else 0

    assert sum(replies([Lures(0.0, 4, 0.5)], MANY)) < sum(MANY) / 0.98 + 16


def test_other_costs_of_forwards_bring_on_a_way_that_could_not_draft() -> None:
    """Busy at load: nothing paid, and nothing was drafted."""
    noise, selector = random.Random(3), selector_of(1)
    for _ in range(4):
        reply(selector, [World(0.0, 0, 0.0)], 128, noise)
    selector.use_costs(COSTS)
    times = [reply(selector, [World(0.8, 4, 0.1)], 128, noise) for _ in range(4)]
    assert sum(times) < 4 * 128 / 1.5


@pytest.mark.parametrize("kind", [1, 5])
def test_free_guesses_are_judged_by_what_follows(kind: int) -> None:
    """Against a reference that waits for each guess to be over."""
    draw, record = random.Random(kind), GuessRecord({1: (0.3, 0.5), 5: (0.8, 0.9)})
    text = [draw.randrange(3) for _ in range(600)]
    foreseen = {1: [0.3, 0.15, 0.075], 5: [0.8, 0.72, 0.648]}[kind]
    assert record.reach(kind, 3) == pytest.approx(foreseen)
    expected, count, free_from = record.reach(kind, 3), 4, 0
    for position in range(1, 500):
        record.read(text[: position - 1], text[position - 1])
        guess = [draw.randrange(2) for _ in range(3)]
        if position >= free_from:
            came = text[position : position + 3]
            right = next((n for n in range(3) if came[n] != guess[n]), 3)
            count += 1
            share = 1 / min(count, 24)
            expected = [p + share * ((n < right) - p) for n, p in enumerate(expected)]
            free_from = position + min(right + 1, 3)
        record.follow(position, guess, kind)
    record.read(text[:520], text[520])
    assert record.reach(kind, 3) == pytest.approx(expected)
    assert record.reach(kind, 1) == pytest.approx(expected[:1])
    assert record.reach(kind, 0) == []


def test_free_guesses_stand_alone_where_they_are_sure_and_beside_where_both_may_be_right() -> None:
    selector = selector_of(1, [World(0.6, 4, 0.5)])
    plain, arm = selector.arms
    for _ in range(50):
        missed = dict.fromkeys(selector.arms, 0)
        assert selector.pick(missed, 100) in selector.arms
        selector.count(arm, 3, selector.step_cost(arm))
        arm.learn(2, 4, 5, 0.5, 0)
    picked = selector.pick(dict.fromkeys(selector.arms, 0), 100)
    while picked is plain:  # which is tried now and then, for its time
        selector.count(plain, 1, 1.0)
        picked = selector.pick(dict.fromkeys(selector.arms, 0), 100)
    assert selector.best_lengths(arm, [0.99] * 8) == (8, 0)
    alone_length, beside = selector.best_lengths(arm, [0.3, 0.3, 0.3, 0.3])
    assert (alone_length, beside) == (0, 4)
    assert selector.best_lengths(arm, [0.01] * 8) == (0, 0)
    assert selector.best_lengths(arm, []) == (0, 0)
