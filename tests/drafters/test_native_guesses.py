"""What heads guess in one call of the native library is what their layers guess."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch

from nfox.decoding.cache import KVCache
from nfox.decoding.drafter import Context
from nfox.decoding.rules import make_rule
from nfox.decoding.sampling import Sampling
from nfox.decoding.tree_shapes import TreeShape
from nfox.drafters import method_class
from nfox.drafters.common.heads import HeadsDrafter
from nfox.models.packed_layers import pack_layers
from nfox.models.quantised_vocabulary import QuantisedVocabulary

SIZE, WORDS = 32, tiny.VOCABULARY
TEXT = [(7 * i * i + i) % WORDS for i in range(60)]
SIZES: list[tuple[str, dict[str, Any]]] = [
    ("medusa", {}),
    ("medusa", {"num_layers": 3}),
    ("ctc", {"head_size": 16}),
    ("ctc", {"head_size": 16, "num_layers": 2, "slots": 9}),
]


def made(method: str, **sizes: Any) -> Any:
    """The drafter of a target in bfloat16 with the native library, with random heads."""
    target = tiny.recast("llama", torch.bfloat16, head_dim=16)
    target.fuse()
    if not target.is_native:
        pytest.skip(target.why_not_native)
    kind: Any = method_class(method)
    torch.manual_seed(2)
    config = kind.heads_class.Config(hidden_size=SIZE, vocab_size=WORDS, **sizes)
    heads = kind.heads_class(config)
    with torch.no_grad():
        for weight in heads.parameters():
            weight.copy_(0.3 * torch.randn_like(weight))
    heads = heads.bfloat16().requires_grad_(False)
    pack_layers(heads)
    return kind(target, heads, TreeShape(()))


def in_4_bits(drafter: Any, frequent: tuple[int, ...]) -> QuantisedVocabulary:
    """The vocabulary of a drafter's target in 4 bits: its frequent tokens, or all of it."""
    target = drafter.target
    head = target.model.get_output_embeddings()
    return QuantisedVocabulary(target, head.weight, head.bias, target.head.scaled, frequent)


def native_and_plain(method: str, frequent: tuple[int, ...] | None, **sizes: Any) -> list[Any]:
    """Two equal drafters, of which the second guesses by its layers; with the target's own
    vocabulary or, where frequent tokens are given, in 4 bits.
    """
    both = _, plain = [made(method, **sizes) for _ in range(2)]
    for drafter in both:
        if frequent is not None:
            drafter.vocabulary = in_4_bits(drafter, frequent)
    plain._native = plain.vocabulary, None
    return both


@pytest.mark.parametrize("frequent", [None, (), (3, 8, 20), tuple(range(0, WORDS, 2))])
@pytest.mark.parametrize(("method", "sizes"), SIZES)
def test_they_are_those_of_the_layers(
    method: str, sizes: dict[str, Any], frequent: tuple[int, ...] | None
) -> None:
    """In pieces: more states are read at once than a program has room for. With the target's own
    vocabulary, and with all, few or half of it in 4 bits.
    """
    native, plain = native_and_plain(method, frequent, **sizes)
    assert native.native is not None and plain.native is None
    cache = native.target.new_cache()
    for start, end in ((0, 3), (3, 4), (4, 50), (50, 53)):
        native.target.read(TEXT[start:end], cache)
        context = Context(cache, TEXT[end], [], [], 9, make_rule())
        (tokens, chances), (others, expected) = (likeliest(one, context) for one in (native, plain))
        torch.testing.assert_close(
            torch.tensor(chances), torch.tensor(expected), atol=0.02, rtol=0.05
        )
        agreeing = sum(
            a == b
            for row, other in zip(tokens, others, strict=True)
            for a, b in zip(row, other, strict=True)
        )
        assert agreeing > 0.6 * len(tokens) * len(tokens[0])


@pytest.mark.parametrize("frequent", [None, (), tuple(range(0, WORDS, 2))])
def test_chimera_guesses_by_what_the_target_draws_by(frequent: tuple[int, ...] | None) -> None:
    """With noise, the library and the layers guess the same, and other tokens than without."""
    native, plain = native_and_plain("chimera", frequent, head_dim=16, rank=32)
    cache = native.target.new_cache()
    agreeing = as_without = 0
    for start in range(0, 40, 2):
        native.target.read(TEXT[start : start + 2], cache)
        rules = [*(make_rule(sampling=Sampling(0.9, seed=4)) for _ in range(2)), make_rule()]
        guesses = [
            drafter.guess(Context(cache, TEXT[start + 2], [], [], 9, rule), 3)
            for drafter, rule in zip((native, plain, native), rules, strict=True)
        ]
        first = [found.tokens[0] for found in guesses]
        agreeing += first[0] == first[1]
        as_without += first[0] == first[2]
        chances = [torch.tensor(found.probabilities[0]) for found in guesses[:2]]
        torch.testing.assert_close(*chances, atol=0.06, rtol=0.05)
    assert agreeing > 15 and as_without < 10


def likeliest(drafter: Any, context: Context) -> tuple[list[list[int]], list[list[float]]]:
    """The three likeliest tokens, or columns, of every head or slot."""
    if drafter.method_name() == "ctc":
        (tokens, chances), blank = drafter._likeliest(context)
        assert blank == drafter.native.size - 1 if drafter.native else blank > 0
        return [row[:3] for row in tokens], [row[:3] for row in chances]
    guesses = drafter.guess(context, 3)
    return guesses.tokens, guesses.probabilities


@pytest.mark.parametrize(
    ("method", "options"), [("medusa", {}), ("chimera", {}), ("ctc", {"collapse": False})]
)
def test_a_named_tree_has_no_more_guesses_in_a_place_than_there_are_frequent_tokens(
    method: str, options: dict[str, Any]
) -> None:
    frequent = (3, 8, 20)
    for drafter in native_and_plain(method, frequent):
        drafter.choose_tree(drafter.options(tree="mc_sim_7b_63", **options), [[0.5]], None)
        cache = drafter.target.new_cache()
        drafter.target.read(TEXT[:5], cache)
        tree = drafter.propose(Context(cache, TEXT[5], [], [], 9, make_rule()))
        assert set(tree.tokens[1:]) == set(frequent)


@pytest.mark.parametrize(
    ("method", "sizes"), [("medusa", {"own_vocabulary": True}), ("ctc", {"head_size": 8})]
)
def test_where_the_library_does_not_compute_all_of_it_the_layers_do(
    method: str, sizes: dict[str, Any]
) -> None:
    drafter = made(method, **sizes)
    assert drafter.native is None
    cache = drafter.target.new_cache()
    drafter.target.read(TEXT[:5], cache)
    assert likeliest(drafter, Context(cache, 1, [], [], 9, make_rule()))


def largest(drafter: HeadsDrafter, cache: KVCache) -> Context:
    """What a drafter whose trees are as large as they may be proposes after."""
    drafter.choose_tree(drafter.options(tree="largest", nodes=9), [[0.5]], None)
    return Context(cache, 1, [], [], 9, make_rule())


@pytest.mark.parametrize("method", ["medusa", "chimera", "ctc"])
def test_another_vocabulary_makes_other_guesses(method: str) -> None:
    """Programs read with the vocabulary that the drafter has, not with the one that it had."""
    sizes = {"medusa": {}, "chimera": {"head_dim": 16, "rank": 32}, "ctc": {"head_size": 16}}
    drafter = made(method, **sizes[method])
    first = drafter.native
    assert first is not None and drafter.native is first
    drafter.vocabulary = in_4_bits(drafter, (5,))
    assert drafter.native is not first
    cache = drafter.target.new_cache()
    drafter.target.read(TEXT[:5], cache)
    assert {*drafter.propose(largest(drafter, cache)).tokens[1:]} == {5}
