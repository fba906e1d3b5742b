"""The short way through a model gives what the model itself gives."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from nfox.decoding.tree import TokenTree
from nfox.models.fused_products import (
    Norm,
    PackedGate,
    PackedProduct,
    Product,
)
from nfox.models.transformers_target import TransformersTarget
from nfox.models.unsupported import UnsupportedError

TEXT = [(5 * i + 2) % tiny.VOCABULARY for i in range(60)]
LLAMA = tiny.FAMILIES["llama"].options
FAMILIES = {
    **{
        name: tiny.FAMILIES[name]
        for name in (
            *("llama", "llama-eager", "llama-mha", "mistral", "mistral-eager", "qwen2"),
            *("qwen2-mixed", "qwen3", "gemma2", "gemma3", "phi3"),
        )
    },
    "llama-tied": tiny.Family("Llama", LLAMA | {"tie_word_embeddings": True}),
    "llama-biases": tiny.Family("Llama", LLAMA | {"attention_bias": True, "mlp_bias": True}),
    "olmo2": tiny.Family("Olmo2", LLAMA),
    "granite": tiny.Family(
        "Granite",
        LLAMA
        | {"embedding_multiplier": 3.0, "residual_multiplier": 0.5, "logits_scaling": 2.0}
        | {"attention_multiplier": 0.4},
    ),
    "smollm3": tiny.Family("SmolLM3", LLAMA | {"no_rope_layers": [1, 0]}),
    "phi3-partial": tiny.Family(
        "Phi3",
        LLAMA
        | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
        | {"partial_rotary_factor": 0.5},
    ),
}
OTHERS = [name for name in tiny.DECODERS if name not in FAMILIES]


def fresh(name: str) -> TransformersTarget:
    """A model of its own, whose weights can be moved, with biases and norms that are not what they
    start as.
    """
    target = tiny.target_of(FAMILIES.get(name) or tiny.FAMILIES[name])
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in target.model.parameters():
            if weight.dim() < 2:
                weight += 0.3 * torch.randn_like(weight)
    return target


def walked(target: TransformersTarget) -> tuple[Tensor, Tensor]:
    """Return all logits and states of a text scored in chains and trees, some of it refused."""
    cache = target.new_cache()
    target.read(TEXT[:7], cache)
    scores = []
    for size in (1, 2, 1, 5, 8, 1, 9, 3):
        start = len(cache.tokens)
        piece, other = TEXT[start : start + size], TEXT[start + 9 : start + 12]
        chain = TokenTree.chain(piece[0], piece[1:])
        paths = [piece[1:], other, other[:1] + piece[1:3]]
        trees = [TokenTree.from_paths(piece[0], paths)] if target.proposals == "trees" else []
        for tree in (*trees, chain):
            scores.append(target.score(tree, cache))
        # The last token was wrong.
        cache.commit(chain, range(max(size - 1, 1)), scores[-1][1])
    logits, states = zip(*scores, strict=True)
    return torch.cat(logits), torch.cat(states)


@pytest.mark.parametrize("name", FAMILIES)
def test_it_says_what_the_model_says(name: str) -> None:
    target = fresh(name)
    expected = walked(target)
    target.fuse()
    assert target.forward_description == "fused"
    for fused, own in zip(walked(target), expected, strict=True):
        assert fused.dtype == own.dtype
        # transformers computes norms in float32, whatever the model's dtype.
        torch.testing.assert_close(fused, own, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_text_is_the_models_with_any_tree(name: str) -> None:
    target = fresh(name)
    target.fuse()
    length = 24
    plain = tiny.text(tiny.run(target, tiny.Oracle((), 0), tiny.PROMPT, max_tokens=length))
    ids = torch.tensor([[*tiny.PROMPT, *plain]])
    with torch.inference_mode():  # one forward of the model itself over all of it
        logits = target.model(ids, use_cache=False).logits[0]
    assert logits[len(tiny.PROMPT) - 1 : -1].argmax(-1).tolist() == plain
    for seed in range(3):
        drafter = tiny.Scattered([*tiny.PROMPT, *plain], seed=seed)
        steps = tiny.run(target, drafter, tiny.PROMPT, max_tokens=length)
        assert tiny.text(steps) == plain
        assert len(steps) < length  # some were accepted


@pytest.mark.parametrize("name", ("llama", "qwen3", "llama-tied", "llama-biases"))
def test_the_model_itself_stays_what_it_was(name: str) -> None:
    target = fresh(name)
    before = {key: weight.clone() for key, weight in target.model.state_dict().items()}
    size = sum(weight.nbytes for weight in target.model.parameters())
    expected = walked(target)
    target.fuse()
    after = target.model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(weight, after[key]) for key, weight in before.items())
    memory = {
        weight.untyped_storage().data_ptr(): weight.untyped_storage().nbytes()
        for weight in target.model.parameters()
    }
    assert sum(memory.values()) == size  # nothing is there twice
    target.fused = None
    for again, own in zip(walked(target), expected, strict=True):
        assert torch.equal(again, own)


@pytest.mark.parametrize("name", OTHERS)
def test_what_has_another_shape_scores_for_itself(name: str) -> None:
    target = fresh(name)
    target.fuse()
    assert target.forward_description == "transformers"


def test_what_looks_alike_and_is_another_is_found_out() -> None:
    target = fresh("llama")
    mlp = target.model.model.layers[1].mlp
    mlp.forward = lambda states: mlp.down_proj(mlp.up_proj(states))  # no gate
    expected = walked(target)
    target.fuse()
    assert target.forward_description == "transformers"
    assert torch.equal(walked(target)[0], expected[0])


def test_positions_that_depend_on_the_length_are_left_to_the_model() -> None:
    target = fresh("llama")
    target.model.model.rotary_emb.rope_type = "dynamic"
    target.fuse()
    assert target.fused is None


def test_a_context_ends_where_all_positions_would_be_rotated_otherwise() -> None:
    length = {"original_max_position_embeddings": 64}
    factors = {"short_factor": [1.1] * 4, "long_factor": [4.0] * 4}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, **factors, **length}
    family = tiny.FAMILIES["phi3"]
    target = tiny.target_of(family, rope_parameters=rope, sliding_window=None, **length)
    assert target.max_context == 64 < target.config.max_position_embeddings
    expected, _ = walked(target)
    target.fuse()
    assert target.fused is not None
    torch.testing.assert_close(walked(target)[0], expected, rtol=0, atol=1e-4)
    whole, pieces = target.new_cache(), target.new_cache()
    target.read(TEXT, whole)
    for start in range(0, len(TEXT), 9):
        target.read(TEXT[start : start + 9], pieces)
    logits = [target.score(TokenTree.chain(3), cache)[0] for cache in (whole, pieces)]
    torch.testing.assert_close(*logits)


def test_a_layer_that_is_not_plain_is_left_to_the_model() -> None:
    class Other(nn.Linear):
        pass

    target = fresh("llama")
    mlp = target.model.model.layers[0].mlp
    mlp.up_proj = Other(*reversed(mlp.up_proj.weight.shape), bias=False).to(torch.float64)
    target.fuse()
    assert target.fused is None


@pytest.mark.parametrize("name", ["llama", "gemma3", "granite", "olmo2"])
@pytest.mark.parametrize("small", [True, False])
def test_in_16_bit_it_is_as_close_as_the_model(
    name: str, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32 where a model is small; else in bfloat16, packed where the CPU can."""
    if not small:
        monkeypatch.setattr("nfox.models.fused_decoder._SMALL", 0)
    exact = fresh(name)
    expected, _ = walked(exact)
    model = copy.deepcopy(exact.model).bfloat16()
    model.get_output_embeddings()._forward_pre_hooks.clear()
    target = TransformersTarget(model)
    own, _ = walked(target)
    target.fuse()
    assert target.fused
    fused, states = walked(target)
    assert (fused.dtype, states.dtype) == (torch.float32, torch.bfloat16)
    error, own_error = ((logits - expected).std() for logits in (fused, own))
    assert error < 1.2 * own_error


def test_logits_of_states_are_those_of_scores() -> None:
    target = fresh("granite")
    target.fuse()
    logits, states = walked(target)
    torch.testing.assert_close(target.unembed(states[None, None])[0, 0], logits)


def test_a_norm_that_is_another_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="LayerNorm"):
        Norm.of(nn.LayerNorm(8))


@pytest.mark.skipif(not PackedProduct.is_available(), reason="oneDNN without bfloat16")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["silu", "gelu_pytorch_tanh", "relu"])
@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_packed_products_are_the_plain_ones(count: int, name: str, bias: bool) -> None:
    torch.manual_seed(0)
    weight = torch.randn(48, 32).bfloat16()
    parts = (weight, torch.randn(48).bfloat16() if bias else None)
    rows, residual = torch.randn(count, 32).bfloat16(), torch.randn(count, 48).bfloat16()
    wide = Product(*(part if part is None else part.double() for part in parts))
    packed, gate = PackedProduct(*parts), PackedGate(*parts)
    activation = ACT2FN[name]
    for found, exact in (
        (packed(rows), wide(rows.double())),
        (packed.added_to(residual, rows), wide.added_to(residual.double(), rows.double())),
        (gate.gated(rows, activation), wide.gated(rows.double(), activation)),
    ):
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.double(), exact, rtol=2e-2, atol=2e-2)
