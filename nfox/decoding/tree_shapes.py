"""Shapes of token trees: which ranks of which depth's guesses are tried.

A shape is a list of paths of ranks: (0, 2) is the best guess for the first token, then the third
best for the second (Medusa, Cai et al. 2024, arXiv 2401.10774, section 3). Here are the ones that
promise the most on this machine; `nfox.drafters.common.published_trees` has those with a name.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from nfox.decoding.costs import Costs
from nfox.decoding.tree import TokenTree
from nfox.errors import UsageError

Accuracy = Sequence[Sequence[float]]
"""[depth][rank]: how often the guess of this rank for this depth is the target's own token."""

MAX_NODES = 64
"""The most nodes of a tree, the root included: the size of the published trees."""


@dataclass(frozen=True)
class TreeShape:
    """Which guesses are tried: paths of ranks, each after the path that it continues.

    Args:
        paths: the path of ranks of every node but the root.

    Raises:
        UsageError: if a path continues none of those before it, or is there twice.
    """

    paths: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        known_paths: set[tuple[int, ...]] = {()}
        for path in self.paths:
            if path[:-1] not in known_paths or path in known_paths or min(path) < 0:
                raise UsageError(f"a tree's paths must go on from one another: {path} does not")
            known_paths.add(path)

    def __len__(self) -> int:
        return len(self.paths)

    @classmethod
    def chain(cls, length: int) -> TreeShape:
        """Return the shape that tries the best guess of every depth and no other."""
        return cls(tuple((0,) * depth for depth in range(1, 1 + length)))

    @cached_property
    def depth(self) -> int:
        """The length of the longest path."""
        return max(map(len, self.paths), default=0)

    @cached_property
    def width(self) -> int:
        """How many guesses are needed for each depth: one more than the largest rank."""
        return 1 + max((max(path) for path in self.paths), default=0)

    def limited_to(self, max_depth: int, max_width: int) -> TreeShape:
        """Return the shape of the paths that are no longer than `max_depth` and whose ranks are
        all below `max_width`.
        """
        paths = (path for path in self.paths if len(path) <= max_depth and max(path) < max_width)
        return TreeShape(tuple(paths))

    def fill(self, root: int, guesses: Sequence[Sequence[int]], max_depth: int) -> TokenTree:
        """Return the token tree of this shape below a root.

        Args:
            root: the root's token.
            guesses: [depth][rank] the guessed tokens; those of one depth are all different.
            max_depth: paths that are longer than this, or than there are guesses, are left out.
        """
        tokens, parents = [root], [-1]
        nodes: dict[tuple[int, ...], int] = {(): 0}
        for path in self.paths:
            if len(path) <= min(max_depth, len(guesses)):
                nodes[path] = len(tokens)
                tokens.append(guesses[len(path) - 1][path[-1]])
                parents.append(nodes[path[:-1]])
        return TokenTree(tuple(tokens), tuple(parents))

    def path_probabilities(self, accuracy: Accuracy) -> list[float]:
        """Return for each path how often all of its guesses are right, taking the guesses of
        different depths for independent.
        """
        return [_path_probability(path, accuracy) for path in self.paths]

    def expected_reach(self, accuracy: Accuracy) -> list[float]:
        """Return, for each depth from 1, the share of the steps that is expected to accept so deep,
        with guesses of this accuracy.
        """
        reach = [0.0] * self.depth
        for path, probability in zip(self.paths, self.path_probabilities(accuracy), strict=True):
            reach[len(path) - 1] += probability
        return reach

    def expected_tau(self, accuracy: Accuracy) -> float:
        """Return the tokens per step to expect of guesses of this accuracy."""
        return 1 + sum(self.expected_reach(accuracy))


def _path_probability(path: Sequence[int], accuracy: Accuracy) -> float:
    """Return how often all guesses of a path are right; 0 where no accuracy is known."""
    return math.prod(
        accuracy[depth][rank] if depth < len(accuracy) and rank < len(accuracy[depth]) else 0.0
        for depth, rank in enumerate(path)
    )


def iter_likeliest(
    accuracy: Accuracy, max_width: int = 10
) -> Iterator[tuple[tuple[int, ...], float]]:
    """Yield paths of ranks with their probabilities, the likeliest first, so that each path comes
    after the one that it continues.

    Args:
        accuracy: of the guesses; at every depth it must fall from rank to rank.
        max_width: the most children of a node.
    """
    if not accuracy:
        return
    # Entries: minus the path's probability, the path, the probability of the path it continues.
    queue: list[tuple[float, tuple[int, ...], float]] = [(-accuracy[0][0], (0,), 1.0)]
    while queue:
        negative, path, parent_probability = heapq.heappop(queue)
        if negative == 0:
            return
        yield path, -negative
        next_rank, depth = path[-1] + 1, len(path)
        rank_accuracy = accuracy[depth - 1]
        if next_rank < min(max_width, len(rank_accuracy)):
            sibling = -parent_probability * rank_accuracy[next_rank]
            heapq.heappush(queue, (sibling, (*path[:-1], next_rank), parent_probability))
        if depth < len(accuracy):
            heapq.heappush(queue, (negative * accuracy[depth][0], (*path, 0), -negative))


def fastest_shape(
    accuracy: Accuracy,
    costs: Costs | None,
    draft_seconds: float = 0.0,
    *,
    max_nodes: int = MAX_NODES - 1,
    max_width: int = 10,
) -> TreeShape:
    """Return the shape that promises the most tokens per second.

    Args:
        accuracy: of the guesses.
        costs: the seconds of a target forward over so many nodes; without them the shape is as
            large as it may be.
        draft_seconds: what drafting takes in every step.
        max_nodes: the most nodes, the root not counted.
        max_width: the most children of a node; 1 makes a chain.
    """
    paths: list[tuple[int, ...]] = []
    best_count, best_gain, tau = 0, 1.0, 1.0
    for path, probability in itertools.islice(iter_likeliest(accuracy, max_width), max_nodes):
        paths.append(path)
        tau += probability
        gain = tau
        if costs:
            step_seconds = costs.forward_seconds(len(paths) + 1) + draft_seconds
            gain = tau * costs.forward_seconds(1) / step_seconds
        if gain > best_gain:
            best_count, best_gain = len(paths), gain
    return TreeShape(tuple(paths[:best_count]))
