"""How far guesses that take no time come true, by their kind. It is seen in the text that follows,
whether they were tried or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nfox.decoding.cache import common_prefix

_MEMORY = 24  # guesses of a kind that the averages reach back
_PRIOR = 4  # guesses that the first expectation counts for


class GuessRecord:
    """The shares of guesses that came true, by kind and depth.

    One guess at a time is followed, until the text has passed it or says otherwise: guesses made
    meanwhile mostly repeat it.

    Args:
        expected: by kind, how often the first token of a guess is right, and each further one after
            a right one, before any guess was seen.
    """

    def __init__(self, expected: Mapping[int, tuple[float, float]]) -> None:
        self._expected = expected
        self._counts: dict[int, int] = {}
        self._reach: dict[int, list[float]] = {}
        self._followed: tuple[int, list[int], int] | None = None  # position, tokens, kind

    def forget_guess(self) -> None:
        """Follow no guess any more: another text begins."""
        self._followed = None

    def follow(self, position: int, guess: Sequence[int], kind: int) -> None:
        """Follow a guess, if none is followed already.

        Args:
            position: of its first token in the text.
            guess: its tokens.
            kind: of what kind it is.
        """
        if self._followed is None and guess:
            self._followed = position, list(guess), kind

    def read(self, tokens: Sequence[int], root: int) -> None:
        """Learn from the text, if it says what became of the guess.

        Args:
            tokens: the text.
            root: the token after it.
        """
        if self._followed is None:
            return
        position, guess, kind = self._followed
        came = [*tokens[position : position + len(guess)], root][: len(guess)]
        right = common_prefix(came, guess)
        if right == len(came) < len(guess):
            return
        self._followed = None
        reach = self.reach(kind, len(guess))
        count = self._counts[kind] = self._counts.get(kind, _PRIOR) + 1
        share = 1 / min(count, _MEMORY)
        for depth in range(len(guess)):
            reach[depth] += share * ((depth < right) - reach[depth])
        self._reach[kind] = reach + self._reach.get(kind, [])[len(guess) :]

    def reach(self, kind: int, length: int) -> list[float]:
        """Return by depth, from 1, how often guesses of a kind are right so far.

        Args:
            kind: of what kind they are.
            length: the number of depths.
        """
        known = self._reach.get(kind, [])[:length]
        first, further = self._expected[kind]
        return known + [first * further**depth for depth in range(len(known), length)]
