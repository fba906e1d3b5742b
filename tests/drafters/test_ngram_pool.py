"""The pool of n-grams, and what Jacobi decoding makes of it."""

from __future__ import annotations

from random import Random

import pytest
import tiny
from tiny import PROMPT, context

from nfox import drafters
from nfox.decoding.costs import Costs
from nfox.decoding.drafter import Drafter
from nfox.decoding.generate import Step
from nfox.decoding.rules import make_rule
from nfox.decoding.sampling import Sampling
from nfox.drafters.common.method import DrafterInputs, WeightSources
from nfox.drafters.common.ngram_pool import NgramPool
from nfox.drafters.jacobi import Jacobi
from nfox.errors import UsageError
from nfox.models.options import LoadedModel


def slow_continuations(
    ngrams: list[list[int]], last: list[int], length: int, each: int
) -> list[tuple]:
    """Look through all n-grams, the newest first, for two last tokens and then for one."""
    found: list[tuple] = []
    for size in (2, 1):
        fitting = [g for g in reversed(ngrams) if g[:-length][-size:] == last[-size:]]
        newest = dict.fromkeys(tuple(g[-length:]) for g in fitting if len(g) >= length + size)
        found += [end for end in list(newest)[:each] if end not in found]
    return found[:each]


@pytest.mark.parametrize("length", [1, 3])
def test_the_pool_gives_the_newest_that_follows(length: int) -> None:
    random, pool, ngrams = Random(length), NgramPool(length, 3), []
    for _ in range(300):
        ngram = [random.randrange(3) for _ in range(random.randint(0, length + 3))]
        ngrams.append(ngram)
        pool.add(ngram)
        last = [random.randrange(3) for _ in range(random.randint(1, 3))]
        assert pool.continuations(last) == slow_continuations(ngrams, last, length, 3)
    pool.clear()
    assert len(pool) == 0
    assert pool.continuations([1, 2]) == []


def test_the_pool_does_not_grow_beyond_its_bound() -> None:
    pool, random = NgramPool(2, 3, max_keys=10), Random(0)
    for _ in range(2000):
        pool.add([random.randrange(50) for _ in range(4)])
        assert len(pool) <= 30
    pool.add([60, 61, 62, 63])
    assert pool.continuations([60, 61]) == [(62, 63)]


def branches(step: Step) -> list[list[int]]:
    """Return the tokens of every path from the root's children to the leaves."""
    tree = step.tree
    leaves = set(range(len(tree))) - set(tree.parents)
    return [[tree.tokens[node] for node in tree.path_to(leaf)[1:]] for leaf in sorted(leaves)]


def test_branches_are_words_of_the_text_that_follow_the_root() -> None:
    drafter = Jacobi(0, branches=2, ngram=2)
    text = [1, 2, 3, 9, 2, 4, 5, 8, 2, 6, 7, 9]
    tree = drafter.propose(context(text, 2))
    # 9 2 came before 4 5; after 2 alone 6 7 is newer than 3 9, and there is room for two.
    assert (tree.tokens, tree.parents) == ((2, 4, 5, 6, 7), (-1, 0, 1, 0, 3))
    assert drafter.propose(context(text, 2, max_depth=1)).tokens == (2, 4, 6)
    assert drafter.propose(context(text, 2, max_depth=0)).tokens == (2,)


def test_earlier_guesses_are_kept_with_what_they_were_chosen_after() -> None:
    """A guess at one step, and at the next what the target says after that guess."""
    drafter = Jacobi(3, branches=1, ngram=2)
    drafter.propose(context([1, 2], 3))
    second = drafter.propose(context([1, 2, 3], 10, path=[0], target_tokens=[10, 11, 12, 13]))
    assert second.tokens[:4] == (10, 11, 12, 13)
    third = drafter.propose(context([1, 2, 3, 10], 20, path=[0], target_tokens=[20, 21, 22, 23]))
    assert third.tokens[:3] == (20, 21, 22)
    # After the guess 11 the target said 21, and after that guess now 31.
    fourth = drafter.propose(
        context([1, 2, 3, 10, 20], 11, path=[0], target_tokens=[11, 31, 32, 33])
    )
    paths = {tuple(fourth.tokens[node] for node in fourth.path_to(n)) for n in range(len(fourth))}
    assert (11, 21, 31) in paths


def test_where_only_chains_are_scored_the_better_of_the_two_is_tried() -> None:
    text = [5, 6, 7, 8, 9]
    pool_is_right, window_is_right = (
        Jacobi(2, branches=1, ngram=2, takes_trees=False) for _ in range(2)
    )
    for drafter in (pool_is_right, window_is_right):
        tree = drafter.propose(context([*text, 1], 5))
        assert tree.is_chain
        assert tree.tokens == (5, 6, 7), "a word of the text, before anything is known"
    again = [*text, 1, 5]
    tree = pool_is_right.propose(
        context([*again, 6, 7, 8], 5, path=[0, 1, 2], target_tokens=[6, 7, 8])
    )
    assert tree.tokens[1:] == (6, 7)
    # The window guessed 9 9 all the while, and that came.
    window_is_right._compared = (len(again), (9, 9), (6, 7))
    window_is_right._length = len(again) + 1
    tree = window_is_right.propose(context([*again, 9, 9], 5, path=[0], target_tokens=[9, 9, 9]))
    assert tree.tokens[1:] == (9, 9)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "bloom"])
@pytest.mark.parametrize("temperature", [0.0, 0.3])
def test_the_pool_changes_no_reply_and_shortens_a_repetitive_one(
    family: str, temperature: float
) -> None:
    target, trees = tiny.target(family), tiny.FAMILIES[family].proposals == "trees"
    made: list[tuple[list[int], int]] = []
    for drafter in (
        Jacobi(3),
        Jacobi(3, 3, 2, takes_trees=trees),
        Jacobi(0, 3, 2, takes_trees=trees),
    ):
        replies = []
        for reply in range(3):
            rule = make_rule("exact", Sampling(temperature, seed=3), reply=reply)
            replies.append(tiny.run(target, drafter, PROMPT * 3, rule=rule, max_tokens=60))
        text = [token for steps in replies for token in tiny.text(steps)]
        made.append((text, sum(map(len, replies))))
    texts, steps = zip(*made, strict=True)
    assert texts[0] == texts[1] == texts[2]
    assert steps[1] < steps[0]


def test_a_reply_can_be_seen_twice_and_the_memory_is_bounded() -> None:
    target, drafter = tiny.target(), Jacobi(4, 2, 2)
    drafter._pool.max_keys = 20
    seen = []
    for _ in range(2):
        steps = tiny.run(target, drafter, PROMPT, max_tokens=80)
        seen.append([(step.tree.tokens, step.tree.parents) for step in steps])
        assert len(drafter._pool) <= 2 * 20
    assert seen[0] == seen[1]


def build(costs: Costs | None, **options: str) -> Drafter:
    parts = DrafterInputs(LoadedModel("the target", tiny.target()), costs)
    return drafters.build_drafter("jacobi", options, parts, WeightSources())


def test_nodes_of_the_pool_are_counted_where_the_window_is_chosen() -> None:
    flat, steep = Costs({1: 1.0, 64: 1.0}), Costs({1: 1.0, 2: 3.0, 64: 200.0})
    step = Costs({1: 1.0, 17: 1.0, 18: 100.0, 64: 200.0})  # 17 nodes are free, no more
    assert vars(build(None))["window"] == vars(build(flat))["window"] == 16
    assert vars(build(None))["branches"] == vars(build(flat))["branches"] == 4
    assert "plain decoding" in build(steep).describe()
    assert vars(build(step, pool="3"))["window"] == 4
    assert vars(build(step, pool="0"))["window"] == 16
    assert vars(build(step))["branches"] == 0, "both together do not pay, a window does"
    assert vars(build(steep, window="5", pool="2"))["window"] == 5


@pytest.mark.parametrize("values", [{"pool": "-1"}, {"ngram": "0"}])
def test_a_pool_out_of_bounds_is_refused(values: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="jacobi needs"):
        drafters.parse_options("jacobi", values)
