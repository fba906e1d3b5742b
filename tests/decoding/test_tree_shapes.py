"""Shapes of trees: published, from files, and the ones chosen by accuracy and cost."""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from nfox.decoding import tree_shapes
from nfox.decoding.costs import Costs
from nfox.decoding.node_budget import NodeBudget
from nfox.drafters.common import published_trees
from nfox.errors import UsageError

ACCURACY = [[0.6, 0.15, 0.05], [0.4, 0.1, 0.05], [0.3, 0.1, 0.02]]
FLAT = Costs({1: 1.0, 64: 1.0})


@pytest.mark.parametrize(
    ("name", "depths"),
    [
        ("mc_sim_7b_63", {1: 10, 2: 28, 3: 23, 4: 2}),
        ("vicuna_7b_stage2", {1: 10, 2: 23, 3: 23, 4: 7}),
        ("vicuna_13b_stage2", {1: 10, 2: 19, 3: 25, 4: 9}),
        ("vicuna_33b_stage2", {1: 10, 2: 24, 3: 24, 4: 5}),
        ("zephyr_stage2", {1: 10, 2: 27, 3: 23, 4: 3}),
        ("vicuna_7b_stage1", {1: 10, 2: 32, 3: 20, 4: 1}),
        ("vicuna_7b_stage1_ablation", {1: 10, 2: 21, 3: 25, 4: 7}),
        ("vicuna_13b_stage1", {1: 10, 2: 29, 3: 23, 4: 1}),
        ("vicuna_33b_stage1", {1: 10, 2: 34, 3: 19}),
        ("eagle_25", {1: 4, 2: 8, 3: 8, 4: 3, 5: 2}),
    ],
)
def test_published_shapes_have_their_published_sizes(name: str, depths: dict[int, int]) -> None:
    assert Counter(map(len, published_trees.published_shape(name).paths)) == depths


def test_a_file_holds_paths_in_any_order(tmp_path: Path) -> None:
    file = tmp_path / "tree.json"
    file.write_text(json.dumps([[0, 0], [1], [0]]))
    assert published_trees.find_shape(str(file)).paths == ((0,), (1,), (0, 0))


@pytest.mark.parametrize(
    "text",
    ["{", "[[0], [1, 0]]", "[[0], [-1]]", '[["x"]]', "3", "[]", "[[]]", '{"tree": []}', "[[10]]"],
)
def test_a_broken_file_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tree.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=re.escape(str(file))) as caught:
        published_trees.find_shape(str(file))
    assert "\n" not in str(caught.value)


def test_a_file_is_no_wider_than_the_vocabulary(tmp_path: Path) -> None:
    file = tmp_path / "tree.json"
    file.write_text("[[0], [1], [2], [3]]")
    assert len(published_trees.find_shape(str(file), 4)) == 4
    with pytest.raises(UsageError, match="rank 3"):
        published_trees.find_shape(str(file), 3)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UsageError, match="no tree 'oak'") as caught:
        published_trees.find_shape("oak")
    assert "mc_sim_7b_63" in str(caught.value.hint)


def test_filling_puts_the_guess_of_every_rank_in_its_place() -> None:
    shape = tree_shapes.TreeShape(((0,), (1,), (0, 0), (0, 1), (1, 0)))
    guesses = tree_shapes.by_depth([[5, 6], [7, 8]])
    tree = shape.fill(9, guesses, max_depth=2)
    assert tree.tokens == (9, 5, 6, 7, 8, 7)
    assert tree.parents == (-1, 0, 0, 1, 1, 2)
    assert shape.fill(9, guesses, max_depth=1).tokens == (9, 5, 6)
    assert shape.fill(9, tree_shapes.by_depth([[5, 6]]), max_depth=5).tokens == (9, 5, 6)


def test_what_follows_a_path_may_depend_on_all_of_it() -> None:
    after = {(): [0.5, 0.4], (0,): [0.3, 0.2], (1,): [0.9], (1, 0): [0.5]}
    found = list(tree_shapes.iter_likeliest(lambda path: after.get(path, ())))
    expected = {(0,): 0.5, (1,): 0.4, (1, 0): 0.36, (1, 0, 0): 0.18, (0, 0): 0.15, (0, 1): 0.1}
    assert dict(found) == pytest.approx(expected)
    assert [path for path, _ in found] == list(expected)
    words = {(): [5, 6], (0,): [7, 8], (1,): [9], (1, 0): [4]}
    tree = tree_shapes.TreeShape(tuple(expected)).fill(3, lambda path: words.get(path, ()), 3)
    assert tree.tokens == (3, 5, 6, 9, 4, 7, 8)
    assert tree.parents == (-1, 0, 0, 2, 3, 1, 1)


def test_the_likeliest_paths_are_the_best_of_all_trees_of_their_size() -> None:
    """Every other prefix-closed set of as many paths promises no more."""
    chosen = tree_shapes.fastest_shape(ACCURACY, None, max_nodes=4, max_width=3)
    every = tree_shapes.fastest_shape(ACCURACY, None, max_nodes=39, max_width=3).paths
    assert len(every) == 3 + 9 + 27
    others = [{path, *(path[:i] for i in range(1, len(path)))} for path in every]
    for other in others:
        paths = sorted(other, key=len)
        if len(paths) <= 4:
            assert tree_shapes.TreeShape(tuple(paths)).expected_tau(
                ACCURACY
            ) <= chosen.expected_tau(ACCURACY)


def test_a_dear_width_makes_a_small_tree_and_a_cheap_one_a_large_tree() -> None:
    dear = Costs({1: 1.0, 2: 1.9, 64: 64.0})
    assert len(tree_shapes.fastest_shape(ACCURACY, dear, max_width=3)) == 0
    middle = tree_shapes.fastest_shape(
        ACCURACY, Costs({1: 1.0, 8: 1.1, 16: 2.0, 64: 8.0}), max_width=3
    )
    assert 0 < len(middle) < len(tree_shapes.fastest_shape(ACCURACY, FLAT, max_width=3)) == 39


def test_width_one_is_a_chain() -> None:
    assert tree_shapes.fastest_shape(ACCURACY, FLAT, max_width=1).paths == ((0,), (0, 0), (0, 0, 0))


def test_a_dear_draft_is_not_worth_it() -> None:
    assert len(tree_shapes.fastest_shape(ACCURACY, FLAT, draft_seconds=5.0)) == 0


def test_the_chance_of_a_path_is_that_of_all_its_guesses() -> None:
    found = list(tree_shapes.iter_likeliest(tree_shapes.by_depth(ACCURACY), max_width=3))
    assert [chance for _, chance in found] == sorted((c for _, c in found), reverse=True)
    for path, chance in found:
        alone = [ACCURACY[depth][rank] for depth, rank in enumerate(path)]
        assert chance == pytest.approx(math.prod(alone))
    shape = tree_shapes.TreeShape(tuple(path for path, _ in found))
    assert 1 + sum(chance for _, chance in found) == pytest.approx(shape.expected_tau(ACCURACY))


def test_a_chain_reaches_a_depth_as_often_as_all_guesses_up_to_it_are_right() -> None:
    first = [row[0] for row in ACCURACY]
    expected = [math.prod(first[: depth + 1]) for depth in range(len(first))]
    reach = tree_shapes.TreeShape.chain(len(first)).expected_reach(ACCURACY)
    assert reach == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(50))
def test_no_other_number_of_nodes_pays_more(seed: int) -> None:
    """Also where some widths are cheaper than narrower ones."""
    rng = random.Random(seed)
    chances = sorted((rng.random() for _ in range(rng.randrange(13))), reverse=True)
    costs, rate = Costs({n: rng.uniform(0.1, 5) for n in range(1, 14)}), rng.uniform(0, 2)
    budget = NodeBudget(12, costs, rate)
    kept = budget.select(enumerate(chances))

    def worth(count: int) -> float:
        return sum(chances[:count]) - rate * (
            costs.forward_seconds(count + 1) - costs.forward_seconds(1)
        )

    assert kept == list(range(len(kept)))
    assert worth(len(kept)) >= max(map(worth, range(len(chances) + 1))) - 1e-9


def test_without_costs_all_that_is_allowed_is_tried() -> None:
    assert NodeBudget(3).select(enumerate([0.5, 0.1, 0.01, 0.001])) == [0, 1, 2]
    assert NodeBudget(0).select(enumerate([0.5])) == []


def test_sure_guesses_make_larger_trees() -> None:
    budget = NodeBudget(20, Costs({1: 1.0, 2: 1.1, 32: 4.0}), tokens_per_second=2.0)
    sure, unsure = [[0.9, 0.05]] * 4, [[0.3, 0.2]] * 4
    assert len(budget.select(tree_shapes.iter_likeliest(tree_shapes.by_depth(sure)))) > len(
        budget.select(tree_shapes.iter_likeliest(tree_shapes.by_depth(unsure)))
    )
