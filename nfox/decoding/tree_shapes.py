"""Shapes of token trees: which ranks of which depth's guesses are tried.

A shape is a list of paths of ranks: (0, 2) is the best guess for the first token, then the third
best for the second (Medusa, Cai et al. 2024, arXiv 2401.10774, section 3). Here are the ones that
promise the most on this machine; `nfox.drafters.common.published_trees` has those with a name.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from nfox.decoding.costs import Costs
from nfox.decoding.tree import TokenTree
from nfox.errors import UsageError

Accuracy = Sequence[Sequence[float]]
"""[depth][rank]: how often the guess of this rank for this depth is the target's own token."""

Path = tuple[int, ...]
"""The ranks of the guesses from the root to a node."""

Item = TypeVar("Item")

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

    paths: tuple[Path, ...]

    def __post_init__(self) -> None:
        known_paths: set[Path] = {()}
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

    def fill(
        self, root: int, tokens_after: Callable[[Path], Sequence[int]], max_depth: int
    ) -> TokenTree:
        """Return the token tree of this shape below a root.

        Args:
            root: the root's token.
            tokens_after: returns the guesses for what follows a path, by rank, all different; none
                where nothing was guessed.
            max_depth: paths that are longer than this, or that nothing was guessed for, are left
                out.
        """
        tokens, parents = [root], [-1]
        nodes: dict[Path, int] = {(): 0}
        for path in self.paths:
            *before, rank = path
            guesses = tokens_after(tuple(before)) if len(path) <= max_depth else ()
            if guesses:
                nodes[path] = len(tokens)
                tokens.append(guesses[rank])
                parents.append(nodes[tuple(before)])
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


def by_depth(rows: Sequence[Sequence[Item]]) -> Callable[[Path], Sequence[Item]]:
    """Return what gives the row [rank] of rows [depth][rank] for what follows a path; an empty one
    below the last depth.
    """
    return lambda path: rows[len(path)] if len(path) < len(rows) else ()


def iter_likeliest(
    chances_after: Callable[[Path], Sequence[float]], max_width: int = 10
) -> Iterator[tuple[Path, float]]:
    """Yield paths of ranks with their probabilities, the likeliest first, so that each path comes
    after the one that it continues.

    Args:
        chances_after: returns how probable the guesses for what follows a path are to be right, if
            the path is; they must fall from rank to rank.
        max_width: the most children of a node.
    """
    # Entries: minus the path's probability, the path, the probabilities of the guesses of all ranks
    # in its place, and the probability of the path that it continues.
    queue: list[tuple[float, Path, Sequence[float], float]] = []

    def push(before: Path, rank: int, chances: Sequence[float], probability: float) -> None:
        if rank < min(max_width, len(chances)):
            entry = (-probability * chances[rank], (*before, rank), chances, probability)
            heapq.heappush(queue, entry)

    push((), 0, chances_after(()), 1.0)
    while queue:
        negative, path, chances, parent_probability = heapq.heappop(queue)
        if negative == 0:
            return
        yield path, -negative
        push(path[:-1], path[-1] + 1, chances, parent_probability)
        push(path, 0, chances_after(path), -negative)


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
    paths: list[Path] = []
    best_count, best_gain, tau = 0, 1.0, 1.0
    likeliest = iter_likeliest(by_depth(accuracy), max_width)
    for path, probability in itertools.islice(likeliest, max_nodes):
        paths.append(path)
        tau += probability
        gain = tau
        if costs:
            step_seconds = costs.forward_seconds(len(paths) + 1) + draft_seconds
            gain = tau * costs.forward_seconds(1) / step_seconds
        if gain > best_gain:
            best_count, best_gain = len(paths), gain
    return TreeShape(tuple(paths[:best_count]))
