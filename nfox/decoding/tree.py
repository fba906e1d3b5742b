"""A guess about what comes next. A chain is a tree; "no guess" is a tree of one node.

Depths, attention mask and positions are derived from `parents`, so they cannot disagree with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Source = Literal["accepted", "corrected", "bonus"]
"""Where an emitted token came from: a drafted token the target accepted, the target's token where
it refused a drafted one, or the target's own token after everything drafted was accepted (so also
every token of plain decoding)."""


@lru_cache(maxsize=1024)
def ancestor_mask(parents: tuple[int, ...]) -> Tensor:
    """Return the tree mask: [N, N] bool, row i True at node i and at each of its ancestors."""
    import torch

    mask = torch.eye(len(parents), dtype=torch.bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            mask[node] |= mask[parent]
    return mask


@lru_cache(maxsize=1024)
def node_depths(parents: tuple[int, ...]) -> tuple[int, ...]:
    """Return how many edges lie between the root and each node."""
    depths: list[int] = []
    for parent in parents:
        depths.append(depths[parent] + 1 if parent >= 0 else 0)
    return tuple(depths)


@dataclass(frozen=True, eq=False)
class TokenTree:
    """Drafted continuations of one pending token, sharing their prefixes.

    Node 0 is the root: the pending token, decided by the target and not yet read. Parents come
    before children. Children of one node are different tokens: an equal one would be scored twice
    for nothing, and a rule that draws anew for each would give the token a second chance.

    Args:
        tokens: the token of every node, the root first.
        parents: the parent of every node, -1 for the root.
        q: [N, V] the draft distribution that each node was sampled from (row 0 is unused); None
            for a deterministic guess.

    Raises:
        ValueError: if tokens and parents do not make such a tree.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    q: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.parents) or not self.tokens:
            raise ValueError(
                f"{len(self.tokens)} tokens do not go with {len(self.parents)} parents"
            )
        if self.parents[0] != -1 or any(
            not 0 <= parent < node for node, parent in enumerate(self.parents[1:], 1)
        ):
            raise ValueError(f"parents must start at -1 and precede children: {self.parents}")
        if not self.is_chain and len(set(zip(self.parents, self.tokens, strict=True))) < len(self):
            raise ValueError(f"equal siblings: {self.tokens} under {self.parents}")

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def chain(cls, root: int, drafted: Sequence[int] = (), q: Tensor | None = None) -> TokenTree:
        """Make a tree without branches: the root, then the `drafted` tokens one after the other."""
        return cls((root, *drafted), tuple(range(-1, len(drafted))), q)

    @classmethod
    def from_paths(cls, root: int, paths: Sequence[Sequence[int]]) -> TokenTree:
        """Make the tree of all `paths` of tokens below the root, with common prefixes merged."""
        return cls.chain(root).with_paths(paths)

    def with_paths(self, paths: Iterable[Sequence[int]]) -> TokenTree:
        """Return the nodes of this tree, then those of `paths` of tokens below its root that it
        lacks. It may not have been drawn from a q.
        """
        tokens, parents = list(self.tokens), list(self.parents)
        nodes = {pair: node for node, pair in enumerate(zip(parents, tokens, strict=True))}
        for path in paths:
            node = 0
            for token in path:
                if (node, token) not in nodes:
                    nodes[node, token] = len(tokens)
                    tokens.append(token)
                    parents.append(node)
                node = nodes[node, token]
        return TokenTree(tuple(tokens), tuple(parents))

    @property
    def is_chain(self) -> bool:
        """Whether no node has two children."""
        return self.parents == tuple(range(-1, len(self.parents) - 1))

    @property
    def depths(self) -> tuple[int, ...]:
        """The depth of every node; the root's is 0."""
        return node_depths(self.parents)

    def path_to(self, node: int) -> list[int]:
        """Return the nodes from the root down to `node`."""
        path = [node]
        while self.parents[path[-1]] >= 0:
            path.append(self.parents[path[-1]])
        return path[::-1]

    def longest_accepted_path(
        self, accepted: Sequence[bool], scores: Sequence[float] | None = None
    ) -> list[int]:
        """Return the nodes of the deepest path from the root on which every node is accepted.

        Args:
            accepted: one bool per node; the root counts as accepted.
            scores: one number per node; of equally deep paths the one with the largest sum is
                returned. Without scores the first of them is.
        """
        depths = [0] + [-1] * (len(self) - 1)
        totals = [0.0] * len(self)
        for node in range(1, len(self)):
            parent = self.parents[node]
            if accepted[node] and depths[parent] >= 0:
                depths[node] = depths[parent] + 1
                totals[node] = totals[parent] + (scores[node] if scores else 0.0)
        return self.path_to(max(range(len(self)), key=lambda node: (depths[node], totals[node])))
