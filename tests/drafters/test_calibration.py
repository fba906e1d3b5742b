"""How likely guesses are, learned from what became of them."""

from __future__ import annotations

import random

import pytest
import tiny

from nfox.decoding.costs import Costs
from nfox.decoding.node_budget import NodeBudget
from nfox.decoding.rules import make_rule
from nfox.decoding.sampling import Sampling
from nfox.decoding.tree import TokenTree
from nfox.drafters.common.calibration import Calibration
from nfox.drafters.common.guesses import Guesses
from nfox.drafters.ctc import calibrated_prefixes
from nfox.drafters.medusa import Medusa

CHAIN = TokenTree.chain(7, [1, 2])


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.9])
def test_guesses_count_as_likely_as_they_turned_out(rate: float) -> None:
    """They are said to be right with 0.6; the second one of two is tried where the first is."""
    calibration, draws = Calibration(), random.Random(0)
    for _ in range(3000):
        calibration.expect(CHAIN, [1.0, 0.6, 0.36])
        right = next((n for n in range(2) if draws.random() > rate), 2)
        calibration.learn(list(range(1 + right)))
    for depth in (1, 2):
        assert 0.6 * calibration.factor(depth) == pytest.approx(rate, abs=0.12)
    assert calibration.factor(3) == 1
    assert max(calibration.calibrated([0.99, 0.01], 1)) <= 1


def test_a_guess_beside_the_right_one_is_no_mistake() -> None:
    tree = TokenTree((7, 1, 2), (-1, 0, 0))
    calibration = Calibration()
    for node in (1, 2) * 200:
        calibration.expect(tree, [1.0, 0.5, 0.5])
        calibration.learn([0, node])
    assert calibration.factor(1) == pytest.approx(1)


def test_a_tree_that_was_not_scored_says_nothing() -> None:
    calibration = Calibration()
    calibration.learn([0])
    calibration.expect(CHAIN, [1.0, 0.5, 0.25])
    calibration.learn([])
    calibration.learn([0])
    assert calibration.factor(1) == calibration.factor(2) == 1


def test_what_is_not_tried_is_believed_again() -> None:
    calibration = Calibration()
    for _ in range(200):
        calibration.expect(CHAIN, [1.0, 0.6, 0.36])
        calibration.learn([0])
    assert calibration.factor(1) < 0.1
    factors = []
    for _ in range(500):
        calibration.expect(TokenTree.chain(7), [1.0])
        calibration.learn([0])
        factors.append(calibration.factor(1))
    assert factors == sorted(factors)
    assert factors[-1] > 0.7


def test_trees_shrink_where_heads_are_too_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads that know nothing are refused nearly always, whatever they say of themselves."""
    drafter = tiny.make("medusa", nodes=20)
    assert isinstance(drafter, Medusa)
    depth, size = drafter.heads.config.num_heads, drafter.target.vocabulary_size
    guesses = Guesses([[size - 1]] * depth, [[0.9]] * depth)
    monkeypatch.setattr(drafter, "guess", lambda context, width: guesses)
    drafter.budget = NodeBudget(20, Costs({1: 1.0, 2: 1.5, 20: 10.5}), 1.0)
    steps = tiny.run(tiny.target(), drafter, [1, 2, 3], max_tokens=60)
    sizes = [len(step.tree) for step in steps]
    assert max(sizes) > 2
    assert max(sizes[-5:]) == 1
    assert tiny.text(steps) == tiny.text(
        tiny.run(tiny.target(), tiny.make("none"), [1, 2, 3], max_tokens=60)
    )


def test_what_is_drafted_at_the_same_noise_depends_on_nothing_else() -> None:
    drafter = tiny.make("medusa", nodes=20)
    assert isinstance(drafter, Medusa)
    drafter.budget = NodeBudget(20, Costs({1: 1.0, 2: 1.0001}), 1.0)
    rule = make_rule("typical", Sampling(temperature=1.0, seed=3))
    for _ in range(2):
        tiny.run(tiny.target(), drafter, [1, 2, 3], max_tokens=30, rule=rule)
        assert drafter.calibration.factor(1) == 1


def test_prefixes_stay_behind_those_that_they_continue() -> None:
    prefixes = {(1,): 0.6, (1, 2): 0.5, (3,): 0.3, (1, 2, 4): 0.2, (3, 1): 0.1}
    calibration = Calibration()
    for _ in range(400):  # the second token is right whenever the first one is, which is rare
        calibration.expect(CHAIN, [1.0, 0.9, 0.3])
        calibration.learn([0, 1, 2] if random.Random(_).random() < 0.2 else [0])
    found = calibrated_prefixes(prefixes, calibration)
    assert set(found) == set(prefixes)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    order = list(found)
    assert all(order.index(p[:-1]) < order.index(p) for p in order if len(p) > 1)
    assert found[(1,)] < 0.3
    assert found[(1, 2)] == pytest.approx(found[(1,)])
