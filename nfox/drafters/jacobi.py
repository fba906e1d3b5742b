"""Jacobi decoding: the target's own guesses, corrected in place until they stand.

A window of guesses after the root is scored as a chain. Every node's choice is the target's new
guess for the next position; the accepted ones are emitted and the window slides past them.
Santilli et al. 2023 (arXiv 2305.10427); Kou et al. 2024 (CLLM, arXiv 2403.00835) train a model
for which many positions are right at once.

Beside the window stand n-grams that begin with the root, from a pool of earlier guesses and of the
text (lookahead decoding, Fu et al. 2024, arXiv 2402.02057). Each token of an earlier guess was
chosen after the one before it, though they come from different steps: that is its trail.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import override

from nfox.decoding.cache import common_prefix
from nfox.decoding.costs import idle_reason
from nfox.decoding.drafter import Context
from nfox.decoding.tree import TokenTree
from nfox.drafters.common.method import DrafterInputs, Method, Options, option
from nfox.drafters.common.ngram_pool import BEFORE, Pool, Span
from nfox.errors import UsageError

_FADE = 0.8  # how much an earlier comparison of window and pool still counts a step later


@dataclass(frozen=True)
class JacobiOptions(Options):
    """See `nfox methods`."""

    window: int | None = option(
        None, "tokens guessed at once; by default up to 16, as many as pay on this machine"
    )
    pool: int | None = option(
        None, "earlier guesses and words of the text tried beside the window; by default 4, or 0"
    )
    ngram: int = option(4, "tokens of each of them")

    def __post_init__(self) -> None:
        if (self.window or 0) < 0:
            raise UsageError(f"the window must not be negative: {self.window}")
        if (self.pool or 0) < 0 or self.ngram < 1:
            raise UsageError(
                f"jacobi needs pool >= 0 and ngram >= 1, not {self.pool} and {self.ngram}"
            )


class Jacobi(Method):
    """Propose the target's own choices past the accepted path, refilled to a full window.

    Args:
        window: how many tokens are drafted in a chain.
        pool: n-grams tried beside it.
        ngram: tokens of each.
        trees: whether the target takes them; otherwise the best n-gram takes the window's place
            for its length, wherever such ones foretold more than the window lately.
        given: whether the person chose window or pool.
    """

    summary = "the target's own guesses, corrected in place; made fast by a CLLM"
    rank = 0
    adapter = "cllm"
    options = JacobiOptions

    def __init__(
        self,
        window: int = 16,
        pool: int = 0,
        ngram: int = 4,
        *,
        trees: bool = True,
        given: bool = True,
    ) -> None:
        self.window = window
        self.branches = pool
        self.trees = trees
        self.given = given
        self._random = random.Random(0)
        self._pool = Pool(ngram, max(pool, 1))
        self._trails: list[Span] = []  # of the root and of every guess in the window
        self._read = 0  # so many tokens, the root among them, are in the pool
        self._lead = 0.0  # by how many tokens n-grams were better than the window lately
        self._rivals: tuple[int, Span, Span] = (0, (), ())  # both guesses, and for which place

    @override
    @classmethod
    def build(cls, inputs: DrafterInputs, options: JacobiOptions) -> Jacobi:
        """Nodes of the pool cost as much as those of the window."""
        trees = inputs.model.target.proposals == "trees"
        pools = (4, 0) if options.pool is None else (options.pool,)
        window = pool = 0
        for pool in pools:  # a window may pay alone where both together do not
            beside = pool * options.ngram if trees else 0
            window = inputs.draft_length(options.window, 16, other_nodes=beside)
            if window:
                break
        given = options.window is not None or options.pool is not None
        return cls(window, pool, options.ngram, trees=trees, given=given)

    @override
    def propose(self, context: Context) -> TokenTree:
        """New positions start as random tokens of the text so far."""
        window = min(self.window, context.max_depth)
        chain = len(self._trails) if self.branches else None  # the first nodes of the last tree
        guess = list(context.target_tokens[len(context.path) : chain])[:window]
        text = context.tokens or [context.root]
        guess += [self._random.choice(text) for _ in range(window - len(guess))]
        if not self.branches:
            return TokenTree.chain(context.root, guess)
        found = self._follow(context)
        if found and not self.trees:
            guess, found = self._better(context, guess, found[0]), []
        trails: list[Span] = [*self._trails, *[()] * len(guess)]  # a new token has none yet
        pairs = zip(guess, trails, strict=False)
        kept = [trail if trail[-1:] == (token,) else (token,) for token, trail in pairs]
        self._trails = [tuple(self._last(context)), *kept]
        return TokenTree.from_paths(context.root, [guess, *found])

    def _follow(self, context: Context) -> list[Span]:
        """Add what is new to the pool; return the n-grams that go on from the root.

        Leaves in `_trails` those of the guesses past the accepted path.
        """
        pool, reach = self._pool, BEFORE + self._pool.length
        pairs = zip(self._trails, context.target_tokens, strict=False)
        trails = [(*trail, choice)[-reach:] for trail, choice in pairs]
        for trail in trails:
            pool.add(trail)
        self._trails = trails[len(context.path) :]
        if not self._read and context.encoder_ids:
            _add_all(pool, context.encoder_ids, 0)
        # What is older would be forgotten at once.
        begin = max(self._read - reach, len(context.tokens) - pool.most, 0)
        _add_all(pool, [*context.tokens[begin:], context.root], self._read - begin)
        self._read = len(context.tokens) + 1
        spans = pool.after(self._last(context))[: self.branches]
        return [span[: context.max_depth] for span in spans if context.max_depth > 0]

    def _better(self, context: Context, window: list[int], span: Span) -> list[int]:
        """Return the guesses to try where only one can be tried at each place."""
        begin, mine, theirs = self._rivals
        came = [*context.tokens[begin:], context.root]
        gain = common_prefix(theirs, came) - common_prefix(mine, came)
        self._lead = _FADE * self._lead + gain
        self._rivals = (len(context.tokens) + 1, tuple(window), span)
        return [*span, *window[len(span) :]] if self._lead >= 0 else window

    def _last(self, context: Context) -> list[int]:
        return [*context.tokens[max(0, len(context.tokens) + 1 - BEFORE) :], context.root]

    @override
    def rewind(self, length: int) -> None:
        """Starts the pool and the random fill anew, so that a reply can be
        repeated.
        """
        self._random.seed(length)
        self._pool.clear()
        self._trails, self._read, self._lead, self._rivals = [], 0, 0.0, (0, (), ())

    @override
    def describe(self) -> str:
        where = f"{self.branches} n-grams beside it" if self.trees else "or an n-gram"
        pool = f", {where}" if self.branches else ""
        idle = idle_reason(self.window + self.branches, is_explicit=self.given)
        return f"window {self.window}{pool}{idle}"


def _add_all(pool: Pool, text: Sequence[int], start: int) -> None:
    """Add the n-grams of a text that end after its first `start` tokens."""
    for end in range(max(start, pool.length), len(text)):
        pool.add(text[max(0, end + 1 - pool.length - BEFORE) : end + 1])


METHOD = Jacobi
