"""What heads guess in one step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nfox.decoding.target import Vocabulary
from nfox.models.native.top import top_tokens


@dataclass(frozen=True)
class Guesses:
    """The tokens that may follow the root, for each depth by itself.

    Args:
        tokens: [depth][rank] token ids, those of one depth all different.
        probabilities: [depth][rank] how likely the heads take each to be, falling with the rank.
    """

    tokens: list[list[int]]
    probabilities: list[list[float]]

    @staticmethod
    def from_logits(logits: Tensor, width: int, vocabulary: Vocabulary) -> Guesses:
        """Return the `width` likeliest tokens of each row of [depth, V] logits of a vocabulary."""
        columns, probabilities = top_tokens(logits, min(width, logits.shape[-1]))
        return Guesses([vocabulary.token_ids(row) for row in columns], probabilities)
