"""Jacobi decoding: the target's own guesses, corrected in place until they stand.

A window of guesses after the root is scored as a chain. Every node's choice is the target's new
guess for the next position; the accepted ones are emitted and the window slides past them.
Santilli et al. 2023 (arXiv 2305.10427); Kou et al. 2024 (CLLM, arXiv 2403.00835) train a model
for which many positions are right at once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from nfox.costs import idleness
from nfox.drafters.base import Context, Drafter, Options, Parts, option
from nfox.errors import UsageError
from nfox.tree import TokenTree


@dataclass(frozen=True)
class JacobiOptions(Options):
    """See `nfox methods`."""

    window: int | None = option(
        None, "tokens guessed at once; by default up to 16, as many as pay on this machine"
    )

    def __post_init__(self) -> None:
        if (self.window or 0) < 0:
            raise UsageError(f"the window must not be negative: {self.window}")


class Jacobi(Drafter):
    """Propose the target's own choices past the accepted path, refilled to a full window.

    Args:
        window: how many tokens are drafted.
        given: whether the person chose it.
    """

    summary = "the target's own guesses, corrected in place; made fast by a CLLM"
    rank = 0
    options = JacobiOptions

    def __init__(self, window: int = 16, *, given: bool = True) -> None:
        self.window = window
        self.given = given
        self._random = random.Random(0)

    @classmethod
    def build(cls, parts: Parts, options: JacobiOptions) -> Jacobi:
        """See `Drafter.build`."""
        given = options.window is not None
        return cls(parts.draft_length(options.window, 16), given=given)

    def propose(self, context: Context) -> TokenTree:
        """See `Drafter.propose`. New positions start as random tokens of the text so far."""
        window = min(self.window, context.room)
        guess = list(context.choices[len(context.path) :][:window])
        pool = context.tokens or [context.root]
        guess += [self._random.choice(pool) for _ in range(window - len(guess))]
        return TokenTree.chain(context.root, guess)

    def truncate(self, length: int) -> None:
        """See `Drafter.truncate`. Starts the random fill anew, so that a reply can be repeated."""
        self._random.seed(length)

    def describe(self) -> str:
        """See `Drafter.describe`."""
        return f"window {self.window}{idleness(self.window, given=self.given)}"


METHOD = Jacobi
