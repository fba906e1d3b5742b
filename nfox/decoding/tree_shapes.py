"""Shapes of token trees: which ranks of which depth's guesses are tried.

A shape is a list of paths of ranks: (0, 2) is the best guess for the first token, then the third
best for the second (Medusa, Cai et al. 2024, arXiv 2401.10774, section 3). Here are the ones that
promise the most on this machine; `nfox.decoding.published_trees` has those with a name.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from nfox.decoding.costs import Costs
from nfox.decoding.tree import TokenTree
from nfox.errors import UsageError

Accuracy = Sequence[Sequence[float]]
"""[depth][rank]: how often the guess of this rank for this depth is the target's own token."""

MOST_NODES = 64

Node = TypeVar("Node")


@dataclass(frozen=True)
class Shape:
    """Which guesses are tried: paths of ranks, each after the path it goes on from.

    Args:
        paths: of ranks, without the root's ().
    """

    paths: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        known: set[tuple[int, ...]] = {()}
        for path in self.paths:
            if path[:-1] not in known or path in known or min(path) < 0:
                raise UsageError(f"a tree's paths must go on from one another: {path} does not")
            known.add(path)

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def depth(self) -> int:
        """The length of the longest path."""
        return max(map(len, self.paths), default=0)

    @cached_property
    def width(self) -> int:
        """How many guesses are needed for each depth."""
        return 1 + max((max(path) for path in self.paths), default=0)

    def cut(self, depth: int, width: int | None = None) -> Shape:
        """Return what of it is at most so deep and wide."""
        return Shape(
            tuple(
                path
                for path in self.paths
                if len(path) <= depth and (width is None or max(path) < width)
            )
        )

    def fill(self, root: int, guesses: Sequence[Sequence[int]], room: int) -> TokenTree:
        """Make the tree below a root.

        Args:
            root: token.
            guesses: [depth][rank] tokens, those of one depth all different.
            room: how deep it may be.
        """
        tokens, parents = [root], [-1]
        places: dict[tuple[int, ...], int] = {(): 0}
        for path in self.paths:
            if len(path) <= min(room, len(guesses)):
                places[path] = len(tokens)
                tokens.append(guesses[len(path) - 1][path[-1]])
                parents.append(places[path[:-1]])
        return TokenTree(tuple(tokens), tuple(parents))

    def chances(self, accuracy: Accuracy) -> list[float]:
        """Return how often all of each path is right, taking the depths for independent."""
        return [_chance(path, accuracy) for path in self.paths]

    def tau(self, accuracy: Accuracy) -> float:
        """Return the tokens per step to expect."""
        return 1 + sum(self.chances(accuracy))


def _chance(path: Sequence[int], accuracy: Accuracy) -> float:
    """Return how often all of a path is right."""
    return math.prod(
        accuracy[depth][rank] if depth < len(accuracy) and rank < len(accuracy[depth]) else 0.0
        for depth, rank in enumerate(path)
    )


def likeliest(accuracy: Accuracy, width: int = 10) -> Iterator[tuple[tuple[int, ...], float]]:
    """Yield paths and how likely they are, the likeliest first, each after the one it goes on from.

    Args:
        accuracy: of the guesses, at every depth falling from rank to rank.
        width: children of a node at most.
    """
    if not accuracy:
        return
    # With each path how likely the one is that it goes on from.
    queue: list[tuple[float, tuple[int, ...], float]] = [(-accuracy[0][0], (0,), 1.0)]
    while queue:
        chance, path, before = heapq.heappop(queue)
        if chance == 0:
            return
        yield path, -chance
        rank, depth = path[-1] + 1, len(path)
        row = accuracy[depth - 1]
        if rank < min(width, len(row)):
            heapq.heappush(queue, (-before * row[rank], (*path[:-1], rank), before))
        if depth < len(accuracy):
            heapq.heappush(queue, (chance * accuracy[depth][0], (*path, 0), -chance))


def best(
    accuracy: Accuracy, costs: Costs | None, draft: float = 0.0, *, most: int = 63, width: int = 10
) -> Shape:
    """Return the shape that promises the most tokens per second.

    Args:
        accuracy: of the guesses.
        costs: of a forward over so many nodes; without them the shape is as large as it may be.
        draft: seconds that drafting takes per step.
        most: nodes at most, without the root.
        width: children of a node at most; 1 makes a chain.
    """
    paths: list[tuple[int, ...]] = []
    chosen, promise, tau = 0, 1.0, 1.0
    for path, chance in itertools.islice(likeliest(accuracy, width), most):
        paths.append(path)
        tau += chance
        gain = tau * costs.at(1) / (costs.at(len(paths) + 1) + draft) if costs else tau
        if gain > promise:
            chosen, promise = len(paths), gain
    return Shape(tuple(paths[:chosen]))


class NodeBudget:
    """What a tree's nodes cost, in the tokens that the same time gives elsewhere.

    A step that takes whatever is worth more than that, and nothing else, is what makes all steps
    together the fastest; how large its tree is depends on how sure its guesses are.

    Args:
        most: nodes at most, without the root.
        costs: of a forward over so many nodes; without them all nodes are free.
        rate: tokens per second that are made.
        draft: seconds that guessing one depth more takes, where depths are guessed one by one.

    Attributes:
        floor: what is less likely than that never pays, nor does guessing what follows it.
    """

    def __init__(
        self, most: int, costs: Costs | None = None, rate: float = 0.0, draft: float = 0.0
    ) -> None:
        one = costs.at(1) if costs else 0.0
        self.total = [rate * (costs.at(n + 1) - one) if costs else 0.0 for n in range(most + 1)]
        # Nothing that is worth less than this per node pays after so many, however many come.
        self.least = [
            min((price - self.total[n]) / m for m, price in enumerate(self.total[n + 1 :], 1))
            for n in range(most)
        ]
        self.floor = max(rate * draft, min(self.least, default=1.0))

    def paying(self, nodes: Iterable[tuple[Node, float]]) -> list[Node]:
        """Return the nodes to try.

        Args:
            nodes: and how likely each is to be right, the likeliest first.
        """
        kept: list[Node] = []
        chosen, promise, worth = 0, 0.0, 0.0
        for (node, chance), least in zip(nodes, self.least, strict=False):
            if chance < least:
                break
            kept.append(node)
            worth += chance
            gain = worth - self.total[len(kept)]
            if gain > promise:
                chosen, promise = len(kept), gain
        return kept[:chosen]
