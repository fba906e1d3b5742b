"""The layer that looks back: what drafts see, and what is kept of the past, against loops."""

from __future__ import annotations

import copy
from contextlib import suppress

import pytest
import tiny
import torch
from tiny import PROMPT
from torch import Tensor

from nfox.heads import state_cache
from nfox.heads.attention import DecoderLayer, Norm, draft_attention
from nfox.heads.native_layer import NativeLayer
from nfox.heads.state_cache import LayerCache, StateCache
from nfox.models.native.library import NativeLibraryError, native_library
from nfox.models.packed_layers import pack_layers
from nfox.models.unsupported import UnsupportedError

SIZE = 32


def layer(theta: float = 10_000.0) -> DecoderLayer:
    torch.manual_seed(1)
    return DecoderLayer(SIZE, 2, 8, 5, theta).double()


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_how_much_two_places_heed_each_other_depends_on_their_distance() -> None:
    made, states = layer(), rows(1, 2, SIZE)
    scores = []
    for start, distance in ((0, 3), (700, 3), (0, 4)):
        rotary = made.rotary(2000)[:, [start, start + distance]]
        query, keys, _ = made.project_qkv(states, rotary)
        scores.append(query[:, :, 1] * keys[:, :, 0])
    products = [score.sum(-1) for score in scores]
    torch.testing.assert_close(products[0], products[1])
    assert not torch.allclose(products[0], products[2])


@pytest.mark.parametrize("end", [1, 1024, 1025, 5000])
def test_rotations_reach_as_far_as_they_must_and_are_made_once(end: int) -> None:
    made = layer(theta=50.0)
    rotary = made.rotary(end)
    assert rotary.shape[1] >= end
    assert made.rotary(end) is rotary
    angles = (end - 1) * 50.0 ** (-torch.arange(4, dtype=torch.float64) / 4)
    torch.testing.assert_close(rotary[:, end - 1], torch.stack([angles.cos(), angles.sin()]))


def test_rotations_made_while_drafting_serve_in_training() -> None:
    made = layer(theta=77.0)  # that nobody had before
    with torch.inference_mode():
        made.rotary(4)
    query, _, _ = made.project_qkv(rows(1, 4, SIZE), made.rotary(4)[:, :4])
    query.sum().backward()
    assert made.qkv.weight.grad is not None


@pytest.mark.parametrize("states", [1, 3])
def test_drafts_see_the_past_of_their_position_and_themselves(states: int) -> None:
    batch, heads, length, size = 2, 2, 6, 4
    at = torch.tensor([[1, 5, 0], [2, 2, 4]])
    places = at.shape[1]
    query, draft_keys, draft_values = (rows(batch, heads, places, states, size) for _ in range(3))
    keys, values = (rows(batch, heads, length, size) for _ in range(2))
    here = at.repeat_interleave(states, dim=1)[:, None]
    found = draft_attention(query, here, (keys, values), (draft_keys, draft_values))
    for b in range(batch):
        for place in range(places):
            seen = int(at[b, place]) + 1
            all_keys = torch.cat([keys[b, :, :seen], draft_keys[b, :, place]], dim=1)
            all_values = torch.cat([values[b, :, :seen], draft_values[b, :, place]], dim=1)
            weights = (query[b, :, place] @ all_keys.mT / size**0.5).softmax(-1)
            part = found[b, :, place * states : (place + 1) * states]
            torch.testing.assert_close(part, weights @ all_values)


@pytest.mark.parametrize("chunk", [3, 512])
@pytest.mark.parametrize("count", [1, 2])
def test_queries_see_all_of_the_past(
    chunk: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step by step, or at once in pieces: the same as drafts in training find."""
    monkeypatch.setattr(state_cache, "CHUNK", chunk)
    layers, queries = [layer() for _ in range(count)], rows(2, SIZE)
    norm = Norm(SIZE).double()
    kept, cache = StateCache(layers, norm), tiny.target().new_cache()
    for end in range(1, len(PROMPT) + 1):
        tiny.target().read(PROMPT[end - 1 : end], cache)
        expected, rotary = queries[None], layers[0].rotary(end + 2)
        for one in layers:
            _, *past = one.project_qkv(cache.hidden[None], rotary[:, :end])
            projected = one.project_qkv(expected, rotary[:, end : end + 2])
            query, *draft = (part[:, :, None] for part in projected)
            found = draft_attention(query, torch.tensor([end - 1, end - 1]), past, draft)
            expected = one.after_attention(expected, found)
        for states in (kept, StateCache(layers, norm)):
            with torch.inference_mode(), states.catching_up(cache) as missing:
                made = states.attend(missing, queries, len(states.tokens), is_joint=True)
            torch.testing.assert_close(made, norm(expected[0]))
            assert states.tokens == cache.tokens


def test_what_others_changed_is_read_again_and_the_last_token_always() -> None:
    states, cache = StateCache([layer()], Norm(SIZE).double()), tiny.target().new_cache()
    for tokens, missing in (([1, 2, 3, 4], 4), ([1, 2, 3, 4], 1), ([1, 2, 9], 1), ([1, 2], 1)):
        states.truncate(len(states.tokens))
        cache.truncate(0)
        tiny.target().read(tokens, cache)
        before = list(states.tokens)
        with suppress(KeyboardInterrupt), torch.inference_mode(), states.catching_up(cache):
            raise KeyboardInterrupt
        assert states.tokens == before[: len(states.tokens)]  # as if none had entered
        with torch.inference_mode(), states.catching_up(cache) as found:
            assert len(found) == missing
            states.attend(found, found[-1:], len(states.tokens))
        assert states.tokens == tokens


@pytest.mark.parametrize("with_norm", [True, False])
def test_a_layer_of_the_native_library_is_the_layer(with_norm: bool) -> None:
    """Step by step: several states at once, queries that see each other, and trees."""
    try:
        native_library()
    except NativeLibraryError as error:
        pytest.skip(str(error))
    torch.manual_seed(1)
    exact, norm = DecoderLayer(SIZE, 3, 16, 48).double(), Norm(SIZE).double()
    rounded = copy.deepcopy(exact).bfloat16()
    pack_layers(rounded)
    native, reader = (
        NativeLayer(rounded, copy.deepcopy(norm).bfloat16() if with_norm else None)
        for _ in range(2)
    )
    plain = LayerCache(exact, norm if with_norm else None)
    start = 0
    with torch.inference_mode():
        for count, joint, parents in (
            (301, 1, None),
            (6, 5, None),
            (4, 1, None),
            (5, 0, [-1, 0, 0, 1, 2]),
            (4, 2, None),
        ):
            states = rows(count, SIZE).bfloat16()
            found = native.attend(states, start, parents, joint)
            assert torch.equal(reader.attend(states, start, parents, joint), found)
            expected = plain.attend(states.double(), start, parents, joint)
            assert found.dtype == torch.bfloat16
            torch.testing.assert_close(found.double(), expected, rtol=2e-2, atol=3e-2)
            # What is written over before it is read tells nothing of what reading leaves.
            reader.attend(rows(count, SIZE).bfloat16(), start)
            reader.read(states, start)
            native.attend(states, start)
            plain.read(states.double(), start)
            start += count


def test_a_row_of_a_tree_sees_its_own_path_alone() -> None:
    """It is what it would be if no other path were there."""
    one, states = layer(), rows(6, SIZE)
    parents, past = [-1, 0, 0, 2, 1, 3], rows(4, SIZE)
    with torch.inference_mode():
        whole = LayerCache(one)
        whole.read(past, 0)
        together = whole.attend(states, 4, parents)
        for path in ([0, 1, 4], [0, 2, 3, 5]):
            alone = LayerCache(one)
            alone.read(past, 0)
            torch.testing.assert_close(alone.attend(states[path], 4), together[path])


def test_a_layer_that_is_not_packed_is_none_of_the_native_library() -> None:
    with pytest.raises(UnsupportedError):
        NativeLayer(layer().bfloat16())


def test_a_layer_with_heads_too_wide_for_the_library_is_none_of_it() -> None:
    wide = DecoderLayer(64, 1, 2048, 64).bfloat16()
    pack_layers(wide)
    with pytest.raises(UnsupportedError, match=r"sizes of .*2048"):
        NativeLayer(wide)
