"""What conversations leave behind: found again, never wrong, and under its limit."""

from __future__ import annotations

import random

import pytest
import tiny
import torch
from tiny import PROMPT

from nfox.decoding.cache import KVCache, common_prefix
from nfox.decoding.tree import TokenTree
from nfox.serve.cache_pool import Caches, Replies
from nfox.serve.errors import Busy
from nfox.serve.fair_queue import FairQueue
from nfox.text.messages import Message

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
    caches = Caches(target.new_cache, limit=1 << 40)
    kept: list[list[int]] = []
    for _ in range(60):
        base = numbers.choice(kept)[: numbers.randint(0, 20)] if kept else []
        prompt = [*base, *(numbers.randrange(4) for _ in range(numbers.randint(1, 8)))]
        cache = caches.take(prompt)
        assert len(cache.tokens) == max((common_prefix(k, prompt[:-1]) for k in kept), default=0)
        assert cache.tokens == prompt[: len(cache.tokens)]
        caches.keep(read(cache, prompt))
        kept = [k for k in kept if common_prefix(k, prompt) < len(k)] + [prompt]


def test_what_lies_idle_stays_under_the_limit_and_the_oldest_goes_first() -> None:
    target = tiny.target()
    one = read(target.new_cache(), [1, 2, 3]).nbytes
    caches = Caches(target.new_cache, limit=3 * one)
    for first in range(5):
        caches.keep(read(caches.take([first, 1, 2]), [first, 1, 2]))
        assert caches.nbytes <= 3 * one
    assert [len(caches.take([first, 1, 9]).tokens) for first in range(5)] == [0, 0, 2, 2, 2]
    caches = Caches(target.new_cache, limit=one - 1)
    caches.keep(read(target.new_cache(), [1, 2, 3]))
    assert len(caches) == 0


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
    caches = Caches(target.new_cache, limit=1 << 40)
    cache = caches.take([0, 1, 2], (5, 6))
    cache.reuse([0, 1, 2], (5, 6))
    caches.keep(read(cache, [0, 1, 2], "t5"))
    assert caches.take([0, 1, 2, 3], (5, 7)).tokens == []
    assert caches.take([0, 1, 2, 3], (5, 6)).tokens == [0, 1, 2]


def talk(*texts: str) -> list[Message]:
    return [Message(("user", "assistant")[i % 2], text) for i, text in enumerate(texts)]


def test_the_tokens_of_a_reply_are_recalled_where_the_same_was_said_before_it() -> None:
    replies = Replies()
    first = talk("a", "b")
    replies.remember([first[0], Message("assistant", "b", (1, 2))])
    assert [m.ids for m in replies.recall([*first, *talk("c")])] == [None, (1, 2), None]
    assert [m.ids for m in replies.recall(talk("x", "b"))] == [None, None]
    assert [m.ids for m in replies.recall(talk("ab", ""))] == [None, None]
    replies.remember(talk("a", "b"))  # known as text only: what was known before stays
    assert replies.recall(first)[1].ids == (1, 2)


def test_replies_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nfox.serve.cache_pool._REPLIES", 2)
    replies = Replies()
    for name in "abc":
        replies.remember([*talk(name), Message("assistant", name, (1,))])
    assert [replies.recall(talk(name, name))[1].ids for name in "abc"] == [None, (1,), (1,)]


def put(queue: FairQueue[str], *works: str) -> None:
    """Put work of who stands in its first two letters: an address and a user."""
    for work in works:
        queue.put((work[0], work[1]), work)


def test_clients_take_turns() -> None:
    queue = FairQueue[str](limit=100)
    put(queue, "ax1", "ax2", "ax3", "bx1", "cx1", "bx2")
    assert [queue.get() for _ in range(3)] == ["ax1", "bx1", "cx1"]
    put(queue, "cx2")
    assert [queue.get() for _ in range(4)] == ["ax2", "bx2", "cx2", "ax3"]
    assert len(queue) == 0


def test_many_users_of_one_address_take_the_turns_of_one() -> None:
    queue = FairQueue[str](limit=100)
    put(queue, "ax1", "ay1", "az1", "ax2", "bx1", "bx2")
    assert [queue.get() for _ in range(6)] == ["ax1", "bx1", "ay1", "bx2", "az1", "ax2"]


def test_a_full_queue_refuses() -> None:
    queue = FairQueue[str](limit=2)
    put(queue, "ax1", "bx2")
    with pytest.raises(Busy, match="2 requests are waiting"):
        put(queue, "cx3")
    assert queue.get() == "ax1"
    put(queue, "cx3")


def test_those_who_have_gone_leave_their_place_to_others() -> None:
    gone: set[str] = set()
    queue = FairQueue[str](2, gone.__contains__)
    put(queue, "ax1", "bx2")
    gone.add("bx2")
    assert len(queue) == 1
    put(queue, "cx3")
    assert [queue.get(), queue.get()] == ["ax1", "cx3"]


def test_a_closed_queue_gives_back_what_waited_and_nothing_more() -> None:
    queue = FairQueue[str](limit=5)
    put(queue, "ax1", "bx1")
    assert sorted(queue.close()) == ["ax1", "bx1"]
    assert queue.get() is None
