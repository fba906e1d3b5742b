"""The short way through a draft model gives what the model itself gives."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
from torch import Tensor

from nfox.decoding.tree import TokenTree
from nfox.models.fused_llama import fused_score
from nfox.models.transformers_target import TransformersTarget

KNOWN = ("llama", "llama-mha", "qwen2", "qwen3")
TEXT = [(5 * i + 2) % tiny.VOCABULARY for i in range(40)]


def fresh(family: str, **changes: object) -> TransformersTarget:
    """A model of its own: its weights are moved."""
    model = copy.deepcopy(tiny.target(family, **changes).model)
    model.get_output_embeddings()._forward_pre_hooks.clear()
    return TransformersTarget(model)


def spoken(family: str, **changes: object) -> TransformersTarget:
    """With biases and scales that are not what they start as."""
    made = fresh(family, **changes)
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in made.model.parameters():
            if weight.dim() < 2:
                weight += 0.3 * torch.randn_like(weight)
    return made


def walked(draft: TransformersTarget, score: object) -> tuple[Tensor, Tensor]:
    """Return all logits and states of a text read in pieces, with refused tokens in between."""
    cache = draft.new_cache()
    draft.read(TEXT[:7], cache)
    found = []
    for size in (1, 2, 1, 5, 8, 1, 9, 3):
        begin = len(cache.tokens)
        piece = TEXT[begin : begin + size]
        tree = TokenTree.chain(piece[0], piece[1:])
        logits, hidden = score(tree, cache)  # type: ignore[operator]
        found.append((logits, hidden))
        cache.commit(tree, range(max(size - 1, 1)), hidden)  # the last one was wrong
    return tuple(torch.cat(part) for part in zip(*found, strict=True))  # type: ignore[return-value]


@pytest.mark.parametrize("family", KNOWN)
def test_it_says_what_the_model_says(family: str) -> None:
    draft = spoken(family)
    expected = walked(draft, draft.score)
    score = fused_score(draft)
    assert score != draft.score
    for short, own in zip(walked(draft, score), expected, strict=True):
        assert short.dtype == own.dtype
        # transformers scales in float32, whatever the model's dtype.
        torch.testing.assert_close(short, own, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", KNOWN)
def test_the_model_itself_stays_what_it_was(family: str) -> None:
    draft = spoken(family)
    before = {name: weight.clone() for name, weight in draft.model.state_dict().items()}
    size = sum(weight.numel() for weight in draft.model.parameters())
    expected = walked(draft, draft.score)
    fused_score(draft)
    assert {n: w.shape for n, w in before.items()} == {
        n: w.shape for n, w in draft.model.state_dict().items()
    }
    for name, weight in draft.model.state_dict().items():
        assert torch.equal(weight, before[name])
    places = {w.untyped_storage().data_ptr(): w.untyped_storage() for w in draft.model.parameters()}
    assert sum(place.nbytes() for place in places.values()) == 8 * size  # nothing is there twice
    for after, own in zip(walked(draft, draft.score), expected, strict=True):
        assert torch.equal(after, own)


@pytest.mark.parametrize("family", [f for f in tiny.DECODERS if f not in KNOWN])
def test_what_has_another_shape_scores_for_itself(family: str) -> None:
    draft = fresh(family)
    score = fused_score(draft)
    assert score == draft.score or family == "llama-eager"


def test_what_looks_alike_and_is_another_is_found_out() -> None:
    draft = fresh("llama")
    mlp = draft.model.model.layers[1].mlp
    mlp.forward = lambda states: mlp.down_proj(mlp.up_proj(states))  # no gate
    assert fused_score(draft) == draft.score


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_positions_that_depend_on_the_length_are_left_to_the_model(kind: str) -> None:
    draft = fresh("llama")
    draft.model.model.rotary_emb.rope_type = kind
    assert fused_score(draft) == draft.score


def test_a_layer_that_is_not_plain_is_left_to_the_model() -> None:
    class Other(torch.nn.Linear):
        pass

    draft = fresh("llama")
    other = Other(*reversed(draft.model.model.layers[0].mlp.up_proj.weight.shape), bias=False)
    draft.model.model.layers[0].mlp.up_proj = other.to(torch.float64)
    assert fused_score(draft) == draft.score


def test_in_16_bit_it_is_close() -> None:
    draft = tiny.recast("llama", torch.bfloat16)
    expected = walked(draft, draft.score)
    score = fused_score(draft)
    assert score != draft.score
    for short, own in zip(walked(draft, score), expected, strict=True):
        assert short.dtype == own.dtype
        assert (short - own).float().std() < 0.05 * own.float().std()
