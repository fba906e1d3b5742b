"""The KV caches that conversations leave behind: found again, never wrong, and under a limit."""

from __future__ import annotations

import random

import pytest
import tiny
import torch
from tiny import PROMPT

from nfox.decoding.cache import KVCache, common_prefix
from nfox.decoding.tree import TokenTree
from nfox.serve.cache_pool import CachePool

TEXT = [*PROMPT, *reversed(PROMPT), *PROMPT]


def read(cache: KVCache, tokens: list[int], name: str = "llama") -> KVCache:
    tiny.target(name).read(tokens[len(cache.tokens) :], cache)
    return cache


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2", "bloom"])
@pytest.mark.parametrize("length", [1, 5, len(TEXT)])
def test_a_fork_goes_on_as_a_cache_that_read_it_all(name: str, length: int) -> None:
    target = tiny.target(name)
    whole = read(target.new_cache(), TEXT, name)
    twin = whole.fork(length)
    fresh = read(target.new_cache(), TEXT[:length], name)
    tree = TokenTree.chain(3, [5, 7])
    expected = target.score(tree, fresh)
    for found, right in zip(target.score(tree, twin), expected, strict=True):
        torch.testing.assert_close(found, right)
    read(twin, [*TEXT[:length], 9, 9, 9], name)
    assert whole.tokens == TEXT, "the one it was made from goes on by itself"
    again = target.score(tree, whole)
    torch.testing.assert_close(
        again[0], target.score(tree, read(target.new_cache(), TEXT, name))[0]
    )


@pytest.mark.parametrize("name", ["mamba", "t5"])
def test_what_cannot_be_forked_begins_anew(name: str) -> None:
    target = tiny.target(name)
    cache = target.new_cache()
    cache.reuse([0, 1], (1, 2) if target.is_encoder_decoder else None)
    read(cache, [0, 1, 2], name)
    assert cache.fork(2).tokens == []


def test_the_longest_common_prefix_is_found_whatever_came_before() -> None:
    target, numbers = tiny.target(), random.Random(0)
    pool = CachePool(target.new_cache, max_bytes=1 << 40)
    kept: list[list[int]] = []
    for _ in range(60):
        base = numbers.choice(kept)[: numbers.randint(0, 20)] if kept else []
        prompt = [*base, *(numbers.randrange(4) for _ in range(numbers.randint(1, 8)))]
        cache = pool.take(prompt)
        assert len(cache.tokens) == max((common_prefix(k, prompt[:-1]) for k in kept), default=0)
        assert cache.tokens == prompt[: len(cache.tokens)]
        pool.add(read(cache, prompt))
        kept = [k for k in kept if common_prefix(k, prompt) < len(k)] + [prompt]


def test_what_lies_idle_stays_under_the_limit_and_the_oldest_goes_first() -> None:
    target = tiny.target()
    nbytes = read(target.new_cache(), [1, 2, 3]).nbytes
    pool = CachePool(target.new_cache, max_bytes=3 * nbytes)
    for first in range(5):
        pool.add(read(pool.take([first, 1, 2]), [first, 1, 2]))
        assert pool.nbytes <= 3 * nbytes
    assert [len(pool.take([first, 1, 9]).tokens) for first in range(5)] == [0, 0, 2, 2, 2]
    pool = CachePool(target.new_cache, max_bytes=nbytes - 1)
    pool.add(read(target.new_cache(), [1, 2, 3]))
    assert len(pool) == 0


def test_the_bytes_of_a_cache_are_all_it_has_allocated() -> None:
    target = tiny.target()
    cache = read(target.new_cache(), TEXT)
    layers = target.config.num_hidden_layers
    size = target.config.hidden_size // target.config.num_attention_heads
    rows = layers * 2 * target.config.num_key_value_heads * size + target.hidden_size
    assert cache.nbytes == 256 * rows * 8  # float64; rows come in blocks
    encoded = tiny.target("t5").new_cache()
    encoded.reuse([0, 1], (1, 2))
    before = encoded.nbytes
    tiny.target("t5").read([0], encoded)
    assert encoded.nbytes > before


def test_a_cache_of_another_source_is_not_taken() -> None:
    target = tiny.target("t5")
    pool = CachePool(target.new_cache, max_bytes=1 << 40)
    cache = pool.take([0, 1, 2], (5, 6))
    cache.reuse([0, 1, 2], (5, 6))
    pool.add(read(cache, [0, 1, 2], "t5"))
    assert pool.take([0, 1, 2, 3], (5, 7)).tokens == []
    assert pool.take([0, 1, 2, 3], (5, 6)).tokens == [0, 1, 2]


def test_a_cache_of_another_encoder_input_stays_in_the_pool() -> None:
    target = tiny.target("t5")
    pool = CachePool(target.new_cache, max_bytes=1 << 40)
    for encoder_ids, tokens in (((5, 6), [0, 1]), ((5, 7), [0, 1, 2])):  # the second goes on
        cache = pool.take(tokens, encoder_ids)
        cache.reuse(tokens, encoder_ids)
        pool.add(read(cache, tokens, "t5"))
    assert len(pool) == 2
    assert pool.take([0, 1, 3], (5, 6)).tokens == [0, 1]
