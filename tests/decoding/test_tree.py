"""Everything about a tree follows from its parents."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from nfox.decoding.tree import TokenTree, ancestor_mask

TREE = TokenTree((9, 1, 2, 1, 3, 4), (-1, 0, 0, 2, 2, 1))


def random_tree(seed: int) -> TokenTree:
    random.seed(seed)
    size = random.randint(1, 12)
    return TokenTree(tuple(range(size)), (-1, *(random.randrange(n) for n in range(1, size))))


@pytest.mark.parametrize("seed", range(20))
def test_mask_and_depths_follow_the_paths(seed: int) -> None:
    tree = random_tree(seed)
    mask = ancestor_mask(tree.parents)
    for node in range(len(tree)):
        path = tree.path_to(node)
        assert mask[node].nonzero().flatten().tolist() == sorted(path)
        assert tree.depths[node] == len(path) - 1
        assert path[0] == 0
        assert all(tree.parents[b] == a for a, b in pairwise(path))


@pytest.mark.parametrize("seed", range(20))
def test_a_tree_of_its_own_paths_is_the_same_tree(seed: int) -> None:
    tree = random_tree(seed)
    paths = [[tree.tokens[n] for n in tree.path_to(node)[1:]] for node in range(len(tree))]
    again = TokenTree.from_paths(tree.tokens[0], paths)
    assert (again.tokens, again.parents) == (tree.tokens, tree.parents)
    assert again.is_chain == (max(tree.parents.count(n) for n in range(len(tree))) < 2)


@pytest.mark.parametrize("seed", range(50))
def test_longest_is_what_trying_every_path_gives(seed: int) -> None:
    tree = random_tree(seed)
    accepted = [True] + [random.random() < 0.6 for _ in range(1, len(tree))]
    scores = [-random.random() for _ in range(len(tree))]
    paths = [tree.path_to(node) for node in range(len(tree))]
    right = [path for path in paths if all(accepted[node] for node in path[1:])]
    deepest = [path for path in right if len(path) == max(map(len, right))]
    assert tree.longest_accepted_path(accepted) == deepest[0]
    best = max(deepest, key=lambda path: sum(scores[node] for node in path[1:]))
    assert tree.longest_accepted_path(accepted, scores) == best


def test_a_refused_parent_hides_its_children() -> None:
    assert TREE.longest_accepted_path([True, False, True, False, False, True]) == [0, 2]
    assert TREE.longest_accepted_path([False] * 6) == [0]


def test_no_guess_is_a_tree_of_one_node() -> None:
    for tree in (TokenTree.chain(5), TokenTree.from_paths(5, []), TokenTree.from_paths(5, [[]])):
        assert (tree.tokens, tree.parents, tree.depths) == ((5,), (-1,), (0,))
        assert tree.is_chain


def test_common_prefixes_are_merged() -> None:
    tree = TokenTree.from_paths(9, [[1, 2], [1, 3], [2], [1, 2, 4]])
    assert tree.tokens == (9, 1, 2, 3, 2, 4)
    assert tree.parents == (-1, 0, 1, 1, 0, 2)


@pytest.mark.parametrize("seed", range(20))
def test_a_tree_with_more_paths_has_all_of_them_behind_its_own_nodes(seed: int) -> None:
    draw = random.Random(seed)
    paths = [[draw.randrange(3) for _ in range(draw.randint(0, 4))] for _ in range(6)]
    first, whole = TokenTree.from_paths(7, paths[:3]), TokenTree.from_paths(7, paths)
    longer = first.with_paths(paths[3:])
    assert longer.tokens[: len(first)] == first.tokens
    assert longer.parents[: len(first)] == first.parents

    def spelled(tree: TokenTree) -> set[tuple[int, ...]]:
        return {tuple(tree.tokens[n] for n in tree.path_to(node)) for node in range(len(tree))}

    assert spelled(longer) == spelled(whole)
    assert len(longer) == len(whole)


@pytest.mark.parametrize(
    ("tokens", "parents"),
    [
        ((), ()),
        ((1, 2), (-1,)),
        ((1,), (0,)),
        ((1, 2), (-1, 1)),
        ((1, 2, 3), (-1, 2, 0)),
        ((1, 2), (-1, -1)),
    ],
)
def test_what_is_no_tree_is_refused(tokens: tuple[int, ...], parents: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="parents"):
        TokenTree(tokens, parents)


def test_equal_siblings_are_refused() -> None:
    with pytest.raises(ValueError, match="equal siblings"):
        TokenTree((1, 2, 2), (-1, 0, 0))
    TokenTree((1, 2, 2, 2), (-1, 0, 1, 2))  # equal to its parent is another matter
