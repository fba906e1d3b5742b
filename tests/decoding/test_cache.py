"""The cache holds what transformers' own does, and an error leaves it as it was."""

from __future__ import annotations

import gc
import weakref

import pytest
import tiny
import torch
from tiny import PROMPT
from torch import Tensor
from transformers import DynamicCache

from nfox.decoding.cache import KVCache, common_prefix
from nfox.decoding.tree import TokenTree
from nfox.models.transformers_forward import CACHE_NAMES
from nfox.models.transformers_target import TransformersTarget

LONG = [(11 * i + i // 7) % tiny.VOCABULARY for i in range(700)]
TREE = TokenTree.from_paths(5, [[1, 2], [3, 4, 5], [2]])


def single() -> TransformersTarget:
    """Return a Llama in float32, with room for long texts."""
    target = tiny.target("llama", max_position_embeddings=1024)
    target.model.float()
    return target


def states(cache: KVCache) -> list[Tensor]:
    """Return copies of all rows that count."""
    layers, length = cache.past.layers, len(cache.tokens)
    rows = [t[:, :, :length].clone() for layer in layers for t in (layer.keys, layer.values)]
    return [*rows, cache.hidden.clone()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_equal_to_transformers_bit_by_bit_over_growth() -> None:
    target = single()
    forward = target._transformers
    cache, theirs, start = target.new_cache(), DynamicCache(), 0
    name = next(name for name in CACHE_NAMES if name in forward.parameters)
    for size in (1, 3, 250, 1, 1, 1, 200, 56, 1):  # beyond one block, and beyond two
        ids = torch.tensor([LONG[start : start + size]])
        with torch.inference_mode():
            expected = target.model(ids, output_hidden_states=True, **{name: theirs})
        chain = TokenTree.chain(LONG[start], LONG[start + 1 : start + size])
        # The mask for a tree is compared elsewhere.
        logits, hidden = forward.score(chain, cache, masked=False)
        assert torch.equal(logits, expected.logits[0])
        assert torch.equal(hidden, expected.hidden_states[-1][0])
        cache.commit(chain, range(size), hidden)
        start += size
        for ours, layer in zip(cache.past.layers, theirs.layers, strict=True):
            assert torch.equal(ours.keys[:, :, :start], layer.keys)
            assert torch.equal(ours.values[:, :, :start], layer.values)
    assert cache.tokens == LONG[:start]


@pytest.mark.parametrize("family", tiny.sweep(tiny.DECODERS))
def test_hidden_states_are_the_models_last_ones(family: str) -> None:
    """However they were read: by prefill, in a chain or in a tree, and kept after a commit."""
    target, text = tiny.target(family), list(PROMPT)
    cache = target.new_cache()
    target.read(text, cache)
    path = [0]
    if target.proposals == "trees":
        path = [0, 3, 4]
    elif target.proposals == "chains":
        path = [0, 1, 2]
    tree = TREE if len(path) > 1 and path[1] == 3 else TokenTree.chain(5, [3, 4][: len(path) - 1])
    cache.commit(tree, path, target.score(tree, cache)[1])
    text += [5, 3, 4][: len(path)]
    with torch.inference_mode():
        output = target.model(torch.tensor([text]), output_hidden_states=True, use_cache=False)
    assert cache.tokens == text
    torch.testing.assert_close(cache.hidden, output.hidden_states[-1][0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("path", [[0], [0, 1], [0, 1, 2], [0, 3], [0, 3, 4, 5], [0, 6]])
def test_commit_keeps_the_rows_of_one_branch(path: list[int]) -> None:
    target = single()
    cache = target.new_cache()
    target.read(PROMPT, cache)
    before = states(cache)
    _, hidden = target.score(TREE, cache)
    base, rows = len(PROMPT), torch.tensor([len(PROMPT) + node for node in path])
    expected = [
        t.index_select(2, rows) for layer in cache.past.layers for t in (layer.keys, layer.values)
    ]
    cache.commit(TREE, path, hidden)
    assert cache.tokens == [*PROMPT, *(TREE.tokens[node] for node in path)]
    kept = states(cache)
    assert same([t[:, :, :base] for t in kept[:-1]], before[:-1])
    assert same([t[:, :, base:] for t in kept[:-1]], expected)
    assert torch.equal(kept[-1], torch.cat([before[-1], hidden[path]]))


def test_a_tree_at_the_end_of_a_block() -> None:
    target = single()
    for length in (250, 254, 255, 256, 257):
        cache, plain = target.new_cache(), target.new_cache()
        target.read(LONG[:length], cache)
        cache.commit(TREE, [0, 3, 4, 5], target.score(TREE, cache)[1])
        target.read([*LONG[:length], 5, 3, 4, 5], plain)
        assert cache.tokens == plain.tokens
        for ours, expected in zip(states(cache), states(plain), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)


def test_score_changes_nothing_that_counts() -> None:
    target = single()
    cache = target.new_cache()
    target.read(PROMPT, cache)
    before, (logits, hidden) = states(cache), target.score(TREE, cache)
    target.score(TokenTree.chain(1, [2] * 300), cache)  # grows the memory
    assert same(states(cache), before)
    again, hidden_again = target.score(TREE, cache)
    assert torch.equal(logits, again)
    assert torch.equal(hidden, hidden_again)


@pytest.mark.parametrize("length", [0, 1, 5, 9, 10, 99])
def test_truncate_forgets_the_last_tokens_only(length: int) -> None:
    target = single()
    cache = target.new_cache()
    target.read(PROMPT, cache)
    before = states(cache)
    cache.truncate(length)
    assert cache.tokens == list(PROMPT[:length])
    cut = [t[:, :, :length] for t in before[:-1]] + [before[-1][:length]]
    assert same(states(cache), cut)
    target.read(PROMPT[length:], cache)
    for ours, expected in zip(states(cache), before, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)


def test_reuse_keeps_the_common_start_but_never_the_last_token() -> None:
    target = single()
    for prompt, kept in [
        (PROMPT, 9),
        ((*PROMPT, 1), 10),
        (PROMPT[:4], 3),
        ((*PROMPT[:4], 63, 1), 4),
        ((63,), 0),
        (PROMPT[:1], 0),
    ]:
        cache = target.new_cache()
        target.read(PROMPT, cache)
        assert cache.reuse(prompt) == kept
        assert cache.tokens == list(prompt[:kept])


def test_common_prefix() -> None:
    assert common_prefix([], [1]) == common_prefix([2, 1], [1, 1]) == 0
    assert common_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix([1, 2], [1, 2, 4], 1) == 2


@pytest.mark.parametrize("kind", ["read", "score"])
def test_an_error_in_mid_forward_leaves_the_cache_as_it_was(kind: str) -> None:
    target = single()
    cache = target.new_cache()
    target.read(PROMPT, cache)
    before = states(cache)

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    hook = target.model.base_model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        if kind == "read":
            target.read(LONG[:300], cache)
        else:
            target.score(TREE, cache)
    hook.remove()
    assert cache.tokens == list(PROMPT)
    assert same(states(cache), before)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "mamba"])
def test_an_interrupt_at_any_line_of_a_step(family: str) -> None:
    """What is left is always a true past, or none: what follows is right."""
    target, prompt = tiny.target(family), (*PROMPT, 5, 7)
    for line in range(1, 70):
        cache = target.new_cache()
        target.read(PROMPT, cache)
        with tiny.interrupt(line):
            tree = TokenTree.chain(5)
            cache.commit(tree, [0], target.score(tree, cache)[1])
        steps = tiny.run(target, tiny.make("none", family), prompt, cache=cache, max_tokens=4)
        assert tiny.text(steps) == tiny.slow(family, prompt, 4)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "t5", "mamba"])
def test_an_interrupt_at_any_line_of_another_prompt(family: str) -> None:
    target, sources = (
        tiny.target(family),
        (PROMPT, (8, 1, 30, 2)) if family == "t5" else (None,) * 2,
    )
    prompt = (0, 55, 39, 47, 31)
    drafter = tiny.make("none", family)
    for line in range(1, 30):
        for source in dict.fromkeys(sources):
            cache = target.new_cache()
            tiny.run(target, drafter, prompt, cache=cache, source=sources[0], max_tokens=4)
            with tiny.interrupt(line):
                cache.reuse((0, 55, 39, 1), sources[1])
                tree = TokenTree.chain(1)
                cache.commit(tree, [0], target.score(tree, cache)[1])
            steps = tiny.run(target, drafter, prompt, cache=cache, source=source, max_tokens=4)
            assert tiny.text(steps) == tiny.slow(family, prompt, 4, source)


def test_a_recurrent_state_starts_anew_instead_of_forgetting() -> None:
    target = tiny.target("mamba")
    cache = target.new_cache()
    target.read(PROMPT, cache)
    cache.truncate(len(PROMPT))
    assert cache.tokens == list(PROMPT)
    cache.truncate(len(PROMPT) - 1)
    assert cache.tokens == []


def test_a_cache_goes_when_nobody_needs_it_any_more() -> None:
    """Without waiting for the collector of cycles: gigabytes may hang on it."""
    target = single()
    gc.disable()
    try:
        cache = target.new_cache()
        target.read(LONG[:3], cache)
        gone = weakref.ref(cache)
        del cache
        assert gone() is None
    finally:
        gc.enable()


def test_a_fork_of_what_has_read_nothing_reads_like_a_new_cache() -> None:
    target = tiny.target()
    for cache in (target.new_cache().fork(0), target.new_cache().fork(3)):
        assert cache.tokens == []
        target.read(PROMPT, cache)
        assert torch.equal(cache.hidden, filled_hidden(target))


def filled_hidden(target: TransformersTarget) -> Tensor:
    cache = target.new_cache()
    target.read(PROMPT, cache)
    return cache.hidden
