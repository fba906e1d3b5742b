"""The layer that looks back: what its columns see, and what is remembered, against loops."""

from __future__ import annotations

import pytest
import tiny
import torch
from tiny import PROMPT
from torch import Tensor

from nfox.heads import attention as layers
from nfox.heads.attention import Layer, Memory, attend

SIZE = 32


def layer(theta: float = 10_000.0) -> Layer:
    torch.manual_seed(1)
    return Layer(SIZE, 2, 8, 5, theta).double()


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_how_much_two_places_heed_each_other_depends_on_their_distance() -> None:
    made, states = layer(), rows(1, 2, SIZE)
    scores = []
    for start, distance in ((0, 3), (700, 3), (0, 4)):
        turns = made.turns(2000)[:, [start, start + distance]]
        query, keys, _ = made.project(states, turns)
        scores.append(query[:, :, 1] * keys[:, :, 0])
    products = [score.sum(-1) for score in scores]
    torch.testing.assert_close(products[0], products[1])
    assert not torch.allclose(products[0], products[2])


@pytest.mark.parametrize("end", [1, 1024, 1025, 5000])
def test_rotations_reach_as_far_as_they_must_and_are_made_once(end: int) -> None:
    made = layer(theta=50.0)
    turns = made.turns(end)
    assert turns.shape[1] >= end
    assert made.turns(end) is turns
    angles = (end - 1) * 50.0 ** (-torch.arange(4, dtype=torch.float64) / 4)
    torch.testing.assert_close(turns[:, end - 1], torch.stack([angles.cos(), angles.sin()]))


def test_rotations_made_while_drafting_serve_in_training() -> None:
    made = layer(theta=77.0)  # that nobody had before
    with torch.inference_mode():
        made.turns(4)
    query, _, _ = made.project(rows(1, 4, SIZE), made.turns(4)[:, :4])
    query.sum().backward()
    assert made.qkv.weight.grad is not None


@pytest.mark.parametrize("states", [1, 3])
def test_columns_see_the_past_of_their_place_and_themselves(states: int) -> None:
    batch, heads, length, size = 2, 2, 6, 4
    at = torch.tensor([[1, 5, 0], [2, 2, 4]])
    places = at.shape[1]
    query, own_keys, own_values = (rows(batch, heads, places, states, size) for _ in range(3))
    keys, values = (rows(batch, heads, length, size) for _ in range(2))
    here = at.repeat_interleave(states, dim=1)[:, None]
    found = attend(query, here, (keys, values), (own_keys, own_values))
    for b in range(batch):
        for place in range(places):
            seen = int(at[b, place]) + 1
            all_keys = torch.cat([keys[b, :, :seen], own_keys[b, :, place]], dim=1)
            all_values = torch.cat([values[b, :, :seen], own_values[b, :, place]], dim=1)
            weights = (query[b, :, place] @ all_keys.mT / size**0.5).softmax(-1)
            part = found[b, :, place * states : (place + 1) * states]
            torch.testing.assert_close(part, weights @ all_values)


@pytest.mark.parametrize("chunk", [3, 512])
@pytest.mark.parametrize("count", [1, 2])
def test_what_is_asked_sees_all_of_the_past(
    chunk: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step by step, or at once in pieces: the same as columns in training find."""
    monkeypatch.setattr(layers, "CHUNK", chunk)
    many, asking = [layer() for _ in range(count)], rows(2, SIZE)
    kept, cache = Memory(), tiny.target().new_cache()
    for end in range(1, len(PROMPT) + 1):
        tiny.target().read(PROMPT[end - 1 : end], cache)
        expected, turns = asking[None], many[0].turns(end + 2)
        for one in many:
            _, *past = one.project(cache.hidden[None], turns[:, :end])
            query, *own = (x[:, :, None] for x in one.project(expected, turns[:, end : end + 2]))
            found = attend(query, torch.tensor([end - 1, end - 1]), past, own)
            expected = one.finish(expected, found)
        for memory in (kept, Memory()):
            missing = memory.catch_up(many, cache)
            start = len(memory.tokens)
            with torch.inference_mode():
                made = memory.ask(many, missing, asking, start)
            memory.tokens += cache.tokens[start:]
            torch.testing.assert_close(made, expected[0])
            assert memory.tokens == cache.tokens


def test_what_others_changed_is_read_again_and_the_last_token_always() -> None:
    memory, many, cache = Memory(), [layer()], tiny.target().new_cache()
    for tokens, missing in (([1, 2, 3, 4], 4), ([1, 2, 3, 4], 1), ([1, 2, 9], 1), ([1, 2], 1)):
        memory.truncate(len(memory.tokens))
        cache.truncate(0)
        tiny.target().read(tokens, cache)
        with torch.inference_mode():
            found = memory.catch_up(many, cache)
            assert len(found) == missing
            memory.ask(many, found, found[-1:], len(memory.tokens))
        memory.tokens += tokens[len(memory.tokens) :]
