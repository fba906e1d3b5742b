"""What a wide forward costs decides how much is drafted."""

from __future__ import annotations

import itertools

import pytest
import tiny
import torch

from nfox.decoding import costs
from nfox.decoding.costs import (
    WIDTHS,
    Costs,
    context_slowdown,
    idle_reason,
    measure_costs,
    time_call,
)

FLAT = Costs({1: 5.0, 4: 5.0, 32: 5.0})
LINEAR = Costs({1: 1.0, 2: 2.0, 32: 32.0})
MIXED = Costs({1: 2.0, 4: 3.0, 8: 7.0})


def test_between_measured_widths_it_is_interpolated_beyond_in_proportion() -> None:
    assert [MIXED.forward_seconds(n) for n in (1, 4, 8)] == [2.0, 3.0, 7.0]
    assert MIXED.forward_seconds(2) == pytest.approx(2 + 1 / 3)
    assert MIXED.forward_seconds(7) == pytest.approx(6.0)
    assert MIXED.forward_seconds(16) == pytest.approx(14.0)
    assert Costs({1: 3.0}).forward_seconds(5) == 15.0


def test_the_speed_up_is_the_formula() -> None:
    # gamma 3, alpha 0.5: 1 + 1/2 + 1/4 + 1/8 tokens in the time of one wide forward and 3 drafts.
    assert MIXED.speedup(3, 0.5, draft_seconds=0.5) == pytest.approx(1.875 * 2.0 / (3.0 + 1.5))
    assert MIXED.speedup(3, 1.0) == pytest.approx(4 * 2.0 / 3.0)
    assert MIXED.speedup(0) == 1.0
    assert MIXED.speedup(5, 0.0, draft_seconds=1.0) < 1


def test_the_more_a_draft_costs_the_shorter_it_is() -> None:
    lengths = [FLAT.best_gamma(16, draft) for draft in (0.0, 0.1, 0.5, 1.0, 3.0, 10.0)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] == 16
    assert lengths[-1] == 0
    for most in (0, 1, 7):
        assert FLAT.best_gamma(most) == most
    assert LINEAR.best_gamma(16) == 0


def test_it_says_whether_speculation_pays() -> None:
    assert FLAT.speculation_pays
    assert not LINEAR.speculation_pays
    assert not Costs({1: 1.0}).speculation_pays


def test_why_nothing_is_drafted_is_said_in_a_word() -> None:
    assert idle_reason(3, is_explicit=False) == idle_reason(3, is_explicit=True) == ""
    assert "drafting does not pay on this machine" in idle_reason(0, is_explicit=False)
    assert "as asked for" in idle_reason(0, is_explicit=True)


def test_it_is_shown_in_one_line() -> None:
    assert str(Costs({4: 0.006, 1: 0.004})) == (
        "t(1) = 4.0 ms, t(N)/t(1) = 1: 1.00, 2: 1.17, 4: 1.50"
    )


@pytest.mark.parametrize("family", ["llama", "bloom", "mamba", "t5"])
def test_measuring_scores_every_width_it_can(family: str) -> None:
    found = measure_costs(tiny.target(family), time_limit=0.2)
    expected = {1} if family == "mamba" else set(WIDTHS)
    assert set(found.seconds) <= expected
    assert 1 in found.seconds
    assert all(seconds > 0 for seconds in found.seconds.values())


def test_a_busy_moment_does_not_make_a_narrow_forward_dearer_than_a_wide_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = iter(range(10_000, 0, -1))
    monkeypatch.setattr(costs, "time_call", lambda act, device: next(taken) / 1e6)
    found = measure_costs(tiny.target(), time_limit=0.01).seconds
    assert len(set(found.values())) == 1


def test_a_busy_moment_does_not_make_a_wide_forward_dearer_than_narrow_ones_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = iter([1.0] * 5 + [1.1] * 5 + [9.0] * 5 + [9.5] * 5 + [9.9] * 5 + [10.0] * 5)
    monkeypatch.setattr("nfox.decoding.costs.time_call", lambda call, device: next(seconds))
    monkeypatch.setattr("nfox.decoding.clock.time.perf_counter", lambda: 0.0)
    found = measure_costs(tiny.target()).seconds
    assert found == {1: 1.0, 2: 1.1, 4: 2.2, 8: 4.4, 16: 8.8, 32: 10.0}


def test_a_slow_model_is_measured_at_two_widths_at_least() -> None:
    assert set(measure_costs(tiny.target(), time_limit=0.0).seconds) >= {1, 2}


def test_timed_calls_once() -> None:
    calls: list[int] = []
    assert time_call(lambda: calls.append(1), torch.device("cpu")) >= 0
    assert calls == [1]


@pytest.mark.parametrize("family", ["llama", "t5", "mamba"])
def test_what_the_context_costs_is_timed_and_the_cache_stays(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tiny.target(family)
    cache = target.new_cache()
    cache.reuse([0], (0,) if target.is_encoder_decoder else None)
    target.read([5, 6, 7], cache)
    hidden = cache.hidden.clone()
    seconds = itertools.cycle([2.0, 3.0])  # after a few tokens, after those of the cache
    monkeypatch.setattr("nfox.decoding.costs.time_call", lambda call, device: next(seconds))
    assert context_slowdown(target, cache) == (1.5 if cache.can_roll_back else 1.0)
    assert cache.tokens == [5, 6, 7]
    assert torch.equal(cache.hidden, hidden)


def test_no_forward_is_timed_that_the_context_has_no_room_for() -> None:
    """A model with learned positions, and a full cache."""
    target = tiny.target("gpt2", max_position_embeddings=20)
    assert max(measure_costs(target, time_limit=0.2).seconds) == 8  # behind 8 tokens
    cache = target.new_cache()
    target.read([*range(20)], cache)
    assert context_slowdown(target, cache) == 1.0
