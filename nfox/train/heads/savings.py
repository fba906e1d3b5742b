"""What is saved of the work of training heads on a frozen base."""

from __future__ import annotations

from dataclasses import dataclass

from nfox.errors import UsageError


@dataclass(frozen=True)
class Savings:
    """Work that need not be done, each for a price.

    Args:
        vocabulary_sample: the number of tokens besides those of a batch over which its losses are
            computed, drawn anew for each; 0 for the whole vocabulary. See `SampledVocabulary`.
        keep_states: keep the base's hidden states of all rows in memory, so that it reads each row
            once and not in every epoch.

    Raises:
        UsageError: if a number is out of range.
    """

    vocabulary_sample: int = 0
    keep_states: bool = False

    def __post_init__(self) -> None:
        if self.vocabulary_sample < 0:
            raise UsageError(f"--vocabulary_sample {self.vocabulary_sample} is below 0")
