"""How often guesses are right, against how likely they are said to be.

Heads that have seen their training text many times are too sure on any other (Guo et al. 2017, "On
Calibration of Modern Neural Networks", arXiv 1706.04599). What a node of a tree is worth follows
from how likely its guess is right, so that heads too sure would try nodes that do not pay.
"""

from __future__ import annotations

from collections.abc import Sequence

from nfox.decoding.tree import TokenTree

_KEPT = 1 - 1 / 128  # of what was counted, with every further count
_PRIOR = 4.0  # counts for guesses that are right as often as they are said to be


class Calibration:
    """Counts, for each depth, how often one of the guesses that were tried after a right one was
    right too, and how likely they were said to be.
    """

    def __init__(self) -> None:
        self._right: list[float] = []
        self._expected: list[float] = []
        self._tree: TokenTree | None = None
        self._probabilities: Sequence[float] = ()

    def factor(self, depth: int) -> float:
        """Return by what a guess's probability, given that those before it are right, must be
        multiplied so that it is right as often.

        Args:
            depth: of the guess, 1 for the first token after the root.
        """
        return (
            self._right[depth - 1] / self._expected[depth - 1] if depth <= len(self._right) else 1.0
        )

    def calibrated(self, probabilities: Sequence[float], depth: int) -> list[float]:
        """Return how likely guesses turned out so far to be right: 1 at most.

        Args:
            probabilities: [rank] how likely they are said to be, if the guesses before them are
                right.
            depth: of the guesses, 1 for the first token after the root.
        """
        factor = self.factor(depth)
        return [min(probability * factor, 1.0) for probability in probabilities]

    def expect(self, tree: TokenTree, probabilities: Sequence[float]) -> None:
        """Remember a tree that will be scored.

        Args:
            tree: N nodes.
            probabilities: [N] of all guesses up to each node, as they are said; of the root 1.
        """
        self._tree, self._probabilities = tree, probabilities

    def learn(self, path: Sequence[int]) -> None:
        """Count what became of the tree that was remembered.

        Args:
            path: its accepted nodes, the root first; empty if it was not scored.
        """
        tree, self._tree = self._tree, None
        if tree is None:
            return
        for depth, node in enumerate(path):
            if depth == len(self._right):
                self._right.append(_PRIOR)
                self._expected.append(_PRIOR)
            tried = [child for child, parent in enumerate(tree.parents) if parent == node]
            if not tried:  # what seems not to pay is believed to be what it is said, by and by
                self._count(depth, (1 - _KEPT) * _PRIOR, (1 - _KEPT) * _PRIOR)
                break
            said = sum(self._probabilities[child] for child in tried)
            expected = said / max(self._probabilities[node], said)
            self._count(depth, float(depth + 1 < len(path)), expected)

    def _count(self, depth: int, right: float, expected: float) -> None:
        self._right[depth] = _KEPT * self._right[depth] + right
        self._expected[depth] = _KEPT * self._expected[depth] + expected
