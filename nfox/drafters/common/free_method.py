"""Methods that can guess in every step, since it takes no time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from nfox.decoding.drafter import Context
from nfox.drafters.common.method import Method


class FreeMethod(Method):
    """A method whose guesses take next to no time, so that they can be made in every step and
    judged by what follows, whether they are tried or not.
    """

    @abstractmethod
    def guess(self, context: Context) -> tuple[Sequence[int], Sequence[float]]:
        """Return the likeliest tokens after the root, and for each depth, from 1, how often such
        guesses are right so deep, as far as was seen.

        Args:
            context: of this step; what became of the last guess is learned from it.
        """
