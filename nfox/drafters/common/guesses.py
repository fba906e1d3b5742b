"""What heads guess in one step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nfox.decoding.target import Vocabulary
from nfox.decoding.tree_shapes import Path, iter_likeliest
from nfox.decoding.verify import Noise
from nfox.drafters.common.calibration import Calibration
from nfox.models.native.top import top_tokens

MAX_WIDTH = 10
"""The most guesses for one position; published trees have no more."""


@dataclass
class Guesses:
    """The tokens that may follow the root, and those after them; `add` makes them deeper.

    Args:
        tokens: [depth][rank] token ids, those of one depth all different.
        probabilities: [depth][rank] how likely the heads take each to be, falling with the rank.
        branches: the tokens and probabilities [rank] for what follows some paths of ranks, where
            they are others than those of their depth.
    """

    tokens: list[list[int]]
    probabilities: list[list[float]]
    branches: dict[Path, tuple[list[int], list[float]]] = field(default_factory=dict)

    def add(self, found: Guesses, rows: Mapping[Path, int]) -> None:
        """Add one depth more.

        Args:
            found: guesses for what follows some paths of equal length; the first row is also taken
                for what follows any other path of this length.
            rows: by path, the row of `found`.
        """
        self.tokens.append(found.tokens[0])
        self.probabilities.append(found.probabilities[0])
        for path, row in rows.items():
            self.branches[path] = found.tokens[row], found.probabilities[row]

    def tokens_after(self, path: Path) -> Sequence[int]:
        """Return the tokens [rank] that may follow a path of ranks; none below the last depth."""
        return self._after(path)[0]

    def probabilities_after(self, path: Path) -> Sequence[float]:
        """Return how likely each of these is to be right, if the path is."""
        return self._after(path)[1]

    def _after(self, path: Path) -> tuple[Sequence[int], Sequence[float]]:
        depth = len(path)
        if depth >= len(self.tokens):
            return (), ()
        return self.branches.get(path) or (self.tokens[depth], self.probabilities[depth])

    def likeliest(
        self, calibration: Calibration, max_depth: int, max_width: int
    ) -> Iterator[tuple[Path, float]]:
        """Yield paths with how probable they turned out so far to be right, the likeliest first, so
        that each comes after the one that it continues.

        Args:
            calibration: how often such guesses were right.
            max_depth: of a path.
            max_width: the most guesses for one place.
        """

        def chances_after(path: Path) -> Sequence[float]:
            if len(path) == max_depth:
                return ()
            return calibration.calibrated(self.probabilities_after(path), len(path) + 1)

        return iter_likeliest(chances_after, max_width)

    def path_probabilities(self, paths: Iterable[Path]) -> list[float]:
        """Return how likely all guesses of each path are right, of the empty path first.

        Args:
            paths: each after the one that it continues.
        """
        found: dict[Path, float] = {(): 1.0}
        for *before, rank in paths:
            path = tuple(before)
            found[*path, rank] = found[path] * self.probabilities_after(path)[rank]
        return list(found.values())

    @staticmethod
    def from_logits(
        logits: Tensor, width: int, vocabulary: Vocabulary, noise: Noise | None = None
    ) -> Guesses:
        """Return the `width` likeliest tokens of each row of [depth, V] logits of a vocabulary.

        Args:
            logits: what the heads give for each depth.
            width: how many tokens of each row.
            vocabulary: what the columns stand for.
            noise: what the target's tokens will be drawn by; None for the likeliest by the logits.
        """
        if noise:
            row = noise.in_logits(vocabulary.all_token_ids(logits.shape[-1]))
            logits = logits + torch.from_numpy(row).to(logits.device)
        columns, probabilities = top_tokens(logits, min(width, logits.shape[-1]))
        return Guesses([vocabulary.token_ids(row) for row in columns], probabilities)
