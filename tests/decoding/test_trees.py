"""Shapes of trees: published, from files, and the ones chosen by accuracy and cost."""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from nfox.decoding import published_trees as named_trees
from nfox.decoding import tree_shapes as trees
from nfox.decoding.costs import Costs
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
    assert Counter(map(len, named_trees.published(name).paths)) == depths


def test_a_file_holds_paths_in_any_order(tmp_path: Path) -> None:
    file = tmp_path / "tree.json"
    file.write_text(json.dumps([[0, 0], [1], [0]]))
    assert named_trees.named(str(file)).paths == ((0,), (1,), (0, 0))


@pytest.mark.parametrize(
    "text",
    ["{", "[[0], [1, 0]]", "[[0], [-1]]", '[["x"]]', "3", "[]", "[[]]", '{"tree": []}', "[[10]]"],
)
def test_a_broken_file_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tree.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=re.escape(str(file))) as caught:
        named_trees.named(str(file))
    assert "\n" not in str(caught.value)


def test_a_file_is_no_wider_than_the_vocabulary(tmp_path: Path) -> None:
    file = tmp_path / "tree.json"
    file.write_text("[[0], [1], [2], [3]]")
    assert len(named_trees.named(str(file), 4)) == 4
    with pytest.raises(UsageError, match="rank 3"):
        named_trees.named(str(file), 3)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UsageError, match="no tree 'oak'") as caught:
        named_trees.named("oak")
    assert "mc_sim_7b_63" in str(caught.value.hint)


def test_filling_puts_the_guess_of_every_rank_in_its_place() -> None:
    shape = trees.Shape(((0,), (1,), (0, 0), (0, 1), (1, 0)))
    tree = shape.fill(9, [[5, 6], [7, 8]], room=2)
    assert tree.tokens == (9, 5, 6, 7, 8, 7)
    assert tree.parents == (-1, 0, 0, 1, 1, 2)
    assert shape.fill(9, [[5, 6], [7, 8]], room=1).tokens == (9, 5, 6)
    assert shape.fill(9, [[5, 6]], room=5).tokens == (9, 5, 6)


def test_the_likeliest_paths_are_the_best_of_all_trees_of_their_size() -> None:
    """Every other prefix-closed set of as many paths promises no more."""
    chosen = trees.best(ACCURACY, None, most=4, width=3)
    every = trees.best(ACCURACY, None, most=39, width=3).paths
    assert len(every) == 3 + 9 + 27
    others = [{path, *(path[:i] for i in range(1, len(path)))} for path in every]
    for other in others:
        paths = sorted(other, key=len)
        if len(paths) <= 4:
            assert trees.Shape(tuple(paths)).tau(ACCURACY) <= chosen.tau(ACCURACY)


def test_a_dear_width_makes_a_small_tree_and_a_cheap_one_a_large_tree() -> None:
    dear = Costs({1: 1.0, 2: 1.9, 64: 64.0})
    assert len(trees.best(ACCURACY, dear, width=3)) == 0
    middle = trees.best(ACCURACY, Costs({1: 1.0, 8: 1.1, 16: 2.0, 64: 8.0}), width=3)
    assert 0 < len(middle) < len(trees.best(ACCURACY, FLAT, width=3)) == 39


def test_width_one_is_a_chain() -> None:
    assert trees.best(ACCURACY, FLAT, width=1).paths == ((0,), (0, 0), (0, 0, 0))


def test_a_dear_draft_is_not_worth_it() -> None:
    assert len(trees.best(ACCURACY, FLAT, draft=5.0)) == 0


def test_the_chance_of_a_path_is_that_of_all_its_guesses() -> None:
    found = list(trees.likeliest(ACCURACY, width=3))
    assert [chance for _, chance in found] == sorted((c for _, c in found), reverse=True)
    for path, chance in found:
        alone = [ACCURACY[depth][rank] for depth, rank in enumerate(path)]
        assert chance == pytest.approx(math.prod(alone))
    shape = trees.Shape(tuple(path for path, _ in found))
    assert 1 + sum(chance for _, chance in found) == pytest.approx(shape.tau(ACCURACY))


@pytest.mark.parametrize("seed", range(50))
def test_no_other_number_of_nodes_pays_more(seed: int) -> None:
    """Also where some widths are cheaper than narrower ones."""
    rng = random.Random(seed)
    chances = sorted((rng.random() for _ in range(rng.randrange(13))), reverse=True)
    costs, rate = Costs({n: rng.uniform(0.1, 5) for n in range(1, 14)}), rng.uniform(0, 2)
    prices = trees.NodeBudget(12, costs, rate)
    kept = prices.paying(enumerate(chances))

    def worth(count: int) -> float:
        return sum(chances[:count]) - rate * (costs.at(count + 1) - costs.at(1))

    assert kept == list(range(len(kept)))
    assert worth(len(kept)) >= max(map(worth, range(len(chances) + 1))) - 1e-9


def test_without_costs_all_that_is_allowed_is_tried() -> None:
    assert trees.NodeBudget(3).paying(enumerate([0.5, 0.1, 0.01, 0.001])) == [0, 1, 2]
    assert trees.NodeBudget(0).paying(enumerate([0.5])) == []


def test_sure_guesses_make_larger_trees() -> None:
    prices = trees.NodeBudget(20, Costs({1: 1.0, 2: 1.1, 32: 4.0}), rate=2.0)
    sure, unsure = [[0.9, 0.05]] * 4, [[0.3, 0.2]] * 4
    assert len(prices.paying(trees.likeliest(sure))) > len(prices.paying(trees.likeliest(unsure)))
