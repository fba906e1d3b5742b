"""A drafter that knows the reply and is wrong on purpose: what the engine makes of an acceptance
rate, whatever the model, even one with random weights.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from nfox.drafters.base import Context, Drafter, Options, Parts, option
from nfox.errors import UsageError
from nfox.tree import TokenTree


@dataclass(frozen=True)
class OracleOptions(Options):
    """How often it is right, and how much it drafts."""

    acceptance: float = option(0.8, "chance that a drafted token is right, given the one before")
    gamma: int = option(4, "tokens drafted in every step")

    def __post_init__(self) -> None:
        if not 0 <= self.acceptance <= 1 or self.gamma < 1:
            raise UsageError(
                f"an acceptance is 0 to 1, a gamma above 0: {self.acceptance}, {self.gamma}"
            )


class Oracle(Drafter):
    """Drafts chains whose tokens are right with a given chance, each given the one before.

    Args:
        acceptance: that chance.
        gamma: tokens of a chain.
        vocabulary: of the target.
        seed: of the mistakes.
    """

    summary = "the plain reply, with mistakes at a given rate"
    options = OracleOptions

    def __init__(self, acceptance: float, gamma: int, vocabulary: int, seed: int = 0) -> None:
        self.acceptance = acceptance
        self.gamma = gamma
        self.vocabulary = vocabulary
        self._dice = random.Random(seed)
        self._texts: list[Sequence[int]] = []

    @classmethod
    def build(cls, parts: Parts, options: OracleOptions) -> Oracle:
        """See `Drafter.build`; what it is to say is told by `know`."""
        return cls(options.acceptance, options.gamma, parts.model.target.vocabulary)

    def know(self, texts: Sequence[Sequence[int]]) -> None:
        """Learn the conversation to come.

        Args:
            texts: tokens of prompt and plain reply, for each of its replies.
        """
        self._texts = list(texts)

    def propose(self, context: Context) -> TokenTree:
        """See `Drafter.propose`. Where a text is not the known one, nothing is drafted."""
        begun = [*context.tokens, context.root]
        known = next((text for text in self._texts if list(text[: len(begun)]) == begun), begun)
        drafted = []
        for token in known[len(begun) : len(begun) + min(self.gamma, context.room)]:
            right = self._dice.random() < self.acceptance
            drafted.append(token if right else (token + 1) % self.vocabulary)
        return TokenTree.chain(context.root, drafted)

    def describe(self) -> str:
        """See `Drafter.describe`."""
        return f"right with a chance of {self.acceptance:g}, gamma {self.gamma}"
