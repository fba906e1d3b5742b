"""A pool of n-grams: what may come next, found by the last tokens. Of what followed the same ones
the newest is kept, so its memory is bounded (lookahead decoding, Fu et al. 2024, arXiv 2402.02057).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Span = tuple[int, ...]

BEFORE = 2
"""Tokens that a continuation is found by at most; one is enough."""


class Pool:
    """Continuations by the one and by the two tokens before them.

    Args:
        length: tokens of a continuation.
        each: continuations kept for the same tokens before them.
        most: different tokens before them, one or two, that are kept.
    """

    def __init__(self, length: int, each: int, most: int = 8192) -> None:
        self.length = length
        self.each = each
        self.most = most
        self._after: dict[Span, dict[Span, None]] = {}  # the oldest first, inside as well

    def __len__(self) -> int:
        return sum(map(len, self._after.values()))

    def add(self, gram: Sequence[int]) -> None:
        """Keep an n-gram: its last `length` tokens, by those before them. A shorter one is not."""
        before, end = tuple(gram[: -self.length][-BEFORE:]), tuple(gram[-self.length :])
        for size in range(1, len(before) + 1):
            known = self._after.pop(before[-size:], {})
            known.pop(end, None)
            self._after[before[-size:]] = known | {end: None}
            _forget(self._after[before[-size:]], self.each)
        _forget(self._after, self.most)

    def after(self, last: Sequence[int]) -> list[Span]:
        """Return what followed the last tokens, `each` at most: what followed the last two comes
        first, of that the newest.
        """
        found: dict[Span, None] = {}
        for size in range(min(BEFORE, len(last)), 0, -1):
            found |= dict.fromkeys(reversed(self._after.get(tuple(last[-size:]), {})))
        return list(found)[: self.each]

    def clear(self) -> None:
        """Forget everything."""
        self._after.clear()


def _forget(known: dict[Span, Any], most: int) -> None:
    while len(known) > most:
        del known[next(iter(known))]
