"""Which nodes of a tree are worth what they cost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from nfox.decoding.costs import Costs

Node = TypeVar("Node")


class NodeBudget:
    """What the nodes of a tree cost, in tokens: those that decoding emits in the same time.

    A step that tries the nodes whose guesses are worth more than they cost, and no others, is what
    makes all steps together the fastest; so the tree of a step is the larger, the surer its
    guesses are.

    Args:
        max_nodes: the most nodes, the root not counted.
        costs: the seconds of a target forward over so many nodes; without them nodes are free.
        tokens_per_second: the speed that decoding has, or is expected to have.
        draft_seconds: what guessing one depth more takes; of guesses that are made for all depths
            at once, a depth's share.

    Attributes:
        depth_cost: what guessing one depth more takes, in tokens.
        min_chance: a guess that is less likely to be right than this never pays, nor does guessing
            what follows it.
    """

    def __init__(
        self,
        max_nodes: int,
        costs: Costs | None = None,
        tokens_per_second: float = 0.0,
        draft_seconds: float = 0.0,
    ) -> None:
        root_seconds = costs.forward_seconds(1) if costs else 0.0
        # By number of nodes: the tokens that scoring them beside the root costs.
        self._costs = [
            tokens_per_second * (costs.forward_seconds(count + 1) - root_seconds) if costs else 0.0
            for count in range(max_nodes + 1)
        ]
        # By number of nodes: if every further one is less likely than this, none of them pays,
        # however many come.
        self._thresholds = [
            min(
                (cost - self._costs[count]) / more
                for more, cost in enumerate(self._costs[count + 1 :], 1)
            )
            for count in range(max_nodes)
        ]
        self.depth_cost = tokens_per_second * draft_seconds
        self.min_chance = max(self.depth_cost, min(self._thresholds, default=1.0))

    def select(self, nodes: Iterable[tuple[Node, float]]) -> list[Node]:
        """Return the first nodes, as many as pay.

        Args:
            nodes: each with its probability to be right, the likeliest first.
        """
        candidates: list[Node] = []
        best_count, best_gain, expected_tokens = 0, 0.0, 0.0
        for (node, probability), threshold in zip(nodes, self._thresholds, strict=False):
            if probability < threshold:
                break
            candidates.append(node)
            expected_tokens += probability
            gain = expected_tokens - self._costs[len(candidates)]
            if gain > best_gain:
                best_count, best_gain = len(candidates), gain
        return candidates[:best_count]
