"""A pool of n-grams, looked up by the last tokens (lookahead decoding, Fu et al. 2024, arXiv
2402.02057). Of the continuations of the same tokens the newest are kept, so its memory is bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Ngram = tuple[int, ...]

MAX_KEY_LENGTH = 2
"""The most tokens that a continuation is looked up by; one is enough."""


class NgramPool:
    """Continuations of n-grams, each by the last token before it and by the last two.

    Args:
        length: the tokens of a continuation.
        max_continuations: so many are kept for one key; the oldest are forgotten.
        max_keys: so many keys are kept; those that were added to longest ago are forgotten.
    """

    def __init__(self, length: int, max_continuations: int, max_keys: int = 8192) -> None:
        self.length = length
        self.max_continuations = max_continuations
        self.max_keys = max_keys
        # By key, the continuations; the oldest come first, of keys and of continuations.
        self._continuations: dict[Ngram, dict[Ngram, None]] = {}

    def __len__(self) -> int:
        """Return the number of continuations."""
        return sum(map(len, self._continuations.values()))

    def add(self, ngram: Sequence[int]) -> None:
        """Add an n-gram: its last `length` tokens, by those before them. It is left out if there
        are none before them.
        """
        key, continuation = tuple(ngram[: -self.length]), tuple(ngram[-self.length :])
        for size in range(1, 1 + min(MAX_KEY_LENGTH, len(key))):
            continuations = self._continuations.pop(key[-size:], {})
            continuations.pop(continuation, None)
            self._continuations[key[-size:]] = continuations | {continuation: None}
            _forget_oldest(self._continuations[key[-size:]], self.max_continuations)
        _forget_oldest(self._continuations, self.max_keys)

    def continuations(self, tokens: Sequence[int]) -> list[Ngram]:
        """Return the continuations of the last tokens, `max_continuations` at most: first those of
        the last two tokens, then those of the last one, each the newest first.
        """
        found: dict[Ngram, None] = {}
        for size in range(min(MAX_KEY_LENGTH, len(tokens)), 0, -1):
            found |= dict.fromkeys(reversed(self._continuations.get(tuple(tokens[-size:]), {})))
        return list(found)[: self.max_continuations]

    def clear(self) -> None:
        """Forget all n-grams."""
        self._continuations.clear()


def _forget_oldest(entries: dict[Ngram, Any], max_count: int) -> None:
    while len(entries) > max_count:
        del entries[next(iter(entries))]
