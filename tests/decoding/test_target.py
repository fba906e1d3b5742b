"""A tree scored at once gives what its paths give one by one; what a model takes is found out."""

from __future__ import annotations

import pytest
import tiny
import torch
from tiny import PROMPT

from nfox.decoding.cache import KVCache
from nfox.decoding.tree import TokenTree
from nfox.errors import ModelError
from nfox.models.transformers_target import TransformersTarget

FAMILIES = list(tiny.FAMILIES)
TREES = [name for name in FAMILIES if tiny.FAMILIES[name].proposals == "trees"]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_model_takes_is_found_by_trying(family: str) -> None:
    assert tiny.target(family).proposals == tiny.FAMILIES[family].proposals


@pytest.mark.parametrize(
    ("family", "changes"),
    [("gpt-neo", {"window_size": 24}), ("llama4", {"attention_chunk_size": 24})],
)
def test_windows_that_the_masks_do_not_know_take_no_trees_however_long_they_are(
    family: str, changes: dict[str, int]
) -> None:
    """The probe of a tree reads 20 tokens; behind a longer text it would be another one."""
    assert tiny.target(family, **changes).proposals == "chains"


def test_a_model_without_local_layers_takes_trees_whatever_its_window_would_be() -> None:
    family = tiny.FAMILIES["gpt-neo"]
    assert tiny.target_of(family, attention_types=[[["global"], 2]]).proposals == "trees"


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2", "mixtral", "bloom", "mpt", "t5"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_probe_does_not_depend_on_the_dtype(family: str, dtype: torch.dtype) -> None:
    coarse = tiny.recast(family, dtype)
    assert coarse.proposals == tiny.FAMILIES[family].proposals
    assert coarse.score(TokenTree.chain(1), filled(coarse))[0].dtype == torch.float32


def filled(target: TransformersTarget) -> KVCache:
    cache = target.new_cache()
    cache.reuse([0], PROMPT if target.is_encoder_decoder else None)
    target.read(PROMPT, cache)
    return cache


@pytest.mark.parametrize("family", tiny.sweep(TREES))
@pytest.mark.parametrize("length", [1, 7, 30])
def test_every_node_sees_its_own_path_only(family: str, length: int) -> None:
    target = tiny.target(family)
    past = [(7 * i) % tiny.VOCABULARY for i in range(length)]
    tree = TokenTree.from_paths(9, [range(12), [3], [3, 1, 4], [5, 9, 2, 6, 5, 3, 5, 8, 9, 7]])
    cache = target.new_cache()
    target.read(past, cache)
    logits, hidden = target.score(tree, cache)
    with torch.inference_mode():
        for node in range(len(tree)):
            path = [tree.tokens[n] for n in tree.path_to(node)]
            output = target.model(
                torch.tensor([[*past, *path]]), use_cache=False, output_hidden_states=True
            )
            torch.testing.assert_close(logits[node], output.logits[0, -1], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(
                hidden[node], output.hidden_states[-1][0, -1], rtol=1e-4, atol=1e-4
            )


@pytest.mark.parametrize("family", [f for f in FAMILIES if tiny.FAMILIES[f].proposals == "chains"])
def test_every_node_of_a_chain_sees_those_before_it(family: str) -> None:
    target = tiny.target(family)
    chain = TokenTree.chain(9, [5, 9, 2, 6, 5, 3, 5, 8, 9, 7])
    logits, _ = target.score(chain, filled(target))
    ids = torch.tensor([[*PROMPT, *chain.tokens]])
    inputs = {"decoder_input_ids": ids, "input_ids": torch.tensor([PROMPT])}
    with torch.inference_mode():
        expected = target.model(
            **inputs if target.is_encoder_decoder else {"input_ids": ids}
        ).logits[0]
    torch.testing.assert_close(logits, expected[len(PROMPT) :], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "option"),
    [("llama", "max_position_embeddings"), ("mpt", "max_seq_len")],
)
def test_the_context_is_what_the_config_says(family: str, option: str) -> None:
    changes = {"max_position_embeddings": None} if family == "mpt" else {}
    assert tiny.target(family, **changes, **{option: 99}).max_context == 99


def test_relative_positions_have_no_end() -> None:
    assert tiny.target("t5").max_context > 100_000


def test_no_tokens_are_read_in_no_forward() -> None:
    target = tiny.target()
    cache = target.new_cache()
    assert target.read([], cache)
    assert cache.tokens == []


def test_a_model_that_takes_no_cache_is_refused_instead_of_forgetting() -> None:
    """Models ignore arguments that they do not know: a renamed one would be lost in silence."""
    target = TransformersTarget(tiny.target().model)
    target._transformers.parameters = frozenset({"input_ids", "kwargs"})
    with pytest.raises(ModelError, match="takes no cache"):
        _ = target.proposals


def test_float64_stays_float64() -> None:
    assert tiny.target().score(TokenTree.chain(1), filled(tiny.target()))[0].dtype == torch.float64


def test_a_context_of_many_forwards_leaves_no_captured_states() -> None:
    target = tiny.target()
    filled(target)
    target.score(TokenTree.chain(1, [2]), target.new_cache())
    assert target._transformers._captured == []


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_hidden_states_are_unembedded_as_the_model_does(family: str) -> None:
    target = tiny.target(family)
    assert target.can_unembed
    cache = target.new_cache()
    cache.reuse([3], (5, 6) if target.is_encoder_decoder else None)
    logits, hidden = target.score(TokenTree.chain(3), cache)
    assert hidden.shape[-1] == target.hidden_size
    with torch.inference_mode():
        assert torch.allclose(target.unembed(hidden), logits)


@pytest.mark.parametrize(
    ("family", "change"),
    [("gemma2", {"final_logit_softcapping": 0.5}), ("llama", {})],
)
def test_what_comes_after_the_output_embeddings_is_done_too(
    family: str, change: dict[str, float]
) -> None:
    """A small cap bends every logit."""
    target = tiny.target(family, **change)
    cache = target.new_cache()
    logits, hidden = target.score(TokenTree.chain(3), cache)
    with torch.inference_mode():
        assert torch.allclose(target.unembed(hidden), logits)
        plain = target.model.get_output_embeddings()(hidden)
    assert torch.allclose(plain, logits) == (not change)
