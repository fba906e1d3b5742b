"""Jacobi decoding: the target's own guesses, corrected in place until they stand.

A window of guesses after the root is scored as a chain. The target's token after every node is its
new guess for the next position; the accepted ones are emitted and the window slides past them.
Santilli et al. 2023 (arXiv 2305.10427); Kou et al. 2024 (CLLM, arXiv 2403.00835) train a model
for which many positions are right at once.

Beside the window stand n-grams that begin after the root, from a pool of earlier guesses and of the
text (lookahead decoding, Fu et al. 2024, arXiv 2402.02057). Each guess was chosen after the guess
before it, one step earlier: these make the guess's trajectory, and its last tokens are an n-gram.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import override

from nfox.decoding.cache import common_prefix
from nfox.decoding.costs import Costs, draft_length, idle_reason
from nfox.decoding.drafter import Context
from nfox.decoding.tree import TokenTree
from nfox.drafters.common.method import DrafterInputs, Method, Options, option
from nfox.drafters.common.ngram_pool import MAX_KEY_LENGTH, Ngram, NgramPool
from nfox.errors import UsageError

_MAX_WINDOW = 16  # tokens, where the person chose no window
_POOL_BRANCHES = 4  # n-grams beside the window, where the person chose no number
_USUAL_REACH = (0.3, 0.12, 0.06, 0.04)
"""How often a step accepts so deep, of a model that no adapter has trained for it: SmolLM2-135M on
prompts of MT-bench, where the text does not repeat itself (docs/benchmark/smollm2.json)."""
_DECAY = 0.8  # what a comparison of window and n-gram still counts a step later


@dataclass(frozen=True)
class JacobiOptions(Options):
    """What a person can set for Jacobi decoding."""

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
    """Propose the target's own tokens past the accepted path, refilled to a full window.

    Args:
        window: how many tokens are drafted in a chain.
        branches: how many n-grams are tried beside it.
        ngram: the tokens of each n-gram.
        takes_trees: whether the target takes trees; otherwise the best n-gram takes the window's
            place for its length, while n-grams guess more tokens than the window does.
        is_explicit: whether the person chose window or branches.
        is_trained: whether an adapter may have trained the target for this.
    """

    summary = "the target's own guesses, corrected in place; made fast by a CLLM"
    rank = 0
    adapter = "cllm"
    options = JacobiOptions

    def __init__(
        self,
        window: int = _MAX_WINDOW,
        branches: int = 0,
        ngram: int = 4,
        *,
        takes_trees: bool = True,
        is_explicit: bool = True,
        is_trained: bool = True,
    ) -> None:
        self.window = window
        self.branches = branches
        self.takes_trees = takes_trees
        self.is_explicit = is_explicit
        self.is_trained = is_trained
        self._requested = JacobiOptions(window, branches, ngram)
        self._random = random.Random(0)
        self._pool = NgramPool(ngram, max(branches, 1))
        self._length = 0  # of the text, when it last proposed
        self._trajectories: list[Ngram] = []  # of the root and of every guess in the window
        self._pooled = 0  # so many tokens of the text, the root among them, are in the pool
        self._advantage = 0.0  # by how many tokens n-grams guessed more than the window, lately
        self._compared: tuple[int, Ngram, Ngram] = (0, (), ())  # position, window, n-gram

    @override
    @classmethod
    def build(cls, inputs: DrafterInputs, options: JacobiOptions) -> Jacobi:
        takes_trees = inputs.model.target.proposals == "trees"
        window, branches = _window_and_branches(options, inputs.costs, takes_trees)
        is_explicit = options.window is not None or options.pool is not None
        drafter = cls(
            window,
            branches,
            options.ngram,
            takes_trees=takes_trees,
            is_explicit=is_explicit,
            is_trained=inputs.model.adapter is not None,
        )
        drafter._requested = options
        return drafter

    @override
    def plan(self, costs: Costs) -> None:
        self.window, self.branches = _window_and_branches(self._requested, costs, self.takes_trees)
        self._pool.max_continuations = max(self.branches, 1)

    @property
    @override
    def forecast(self) -> tuple[int, Sequence[float]]:
        if self.is_trained:
            return super().forecast
        other_nodes = self.branches * self._requested.ngram if self.takes_trees else 0
        return 1 + self.window + other_nodes, _USUAL_REACH[: self.window]

    @override
    def propose(self, context: Context) -> TokenTree:
        """Return the window, new positions of which start as random tokens of the text so far, and
        the n-grams beside it.
        """
        length = min(self.window, context.max_depth)
        # So many of the last tree's positions are decided, by whoever's guesses: where those of
        # another method stood beside this one's, the accepted path may be theirs.
        decided, self._length = len(context.tokens) - self._length, len(context.tokens)
        # The window was the first nodes of the last tree; n-grams stood behind it.
        last_length = len(self._trajectories) if self.branches else None
        window = list(context.target_tokens[decided:last_length])[:length]
        text = context.tokens or [context.root]
        window += [self._random.choice(text) for _ in range(length - len(window))]
        if not self.branches:
            return TokenTree.chain(context.root, window)
        self._advance_trajectories(context, decided)
        self._index_text(context)  # after the guesses: what is newer comes first
        found = self._pool.continuations(self._last_tokens(context))[: self.branches]
        ngrams = [ngram[: context.max_depth] for ngram in found if context.max_depth > 0]
        if ngrams and not self.takes_trees:
            window, ngrams = self._better_guess(context, window, ngrams[0]), []
        # A token that does not continue its position's trajectory begins a new one.
        earlier: list[Ngram] = [*self._trajectories, *[()] * len(window)]
        pairs = zip(window, earlier, strict=False)
        trajectories = [known if known[-1:] == (token,) else (token,) for token, known in pairs]
        self._trajectories = [tuple(self._last_tokens(context)), *trajectories]
        return TokenTree.from_paths(context.root, [window, *ngrams])

    def _advance_trajectories(self, context: Context, decided: int) -> None:
        """Continue the trajectories by the new guesses, add them to the pool, and keep those of the
        guesses for positions that are not decided.
        """
        reach = MAX_KEY_LENGTH + self._pool.length
        pairs = zip(self._trajectories, context.target_tokens, strict=False)
        trajectories = [(*known, token)[-reach:] for known, token in pairs]
        for trajectory in trajectories:
            self._pool.add(trajectory)
        self._trajectories = trajectories[decided:]

    def _index_text(self, context: Context) -> None:
        """Add the n-grams of the text that are not in the pool yet, up to the root."""
        pool, reach = self._pool, MAX_KEY_LENGTH + self._pool.length
        if not self._pooled and context.encoder_ids:
            _add_text(pool, context.encoder_ids, 0)
        # What is older would be forgotten at once.
        begin = max(self._pooled - reach, len(context.tokens) - pool.max_keys, 0)
        _add_text(pool, [*context.tokens[begin:], context.root], self._pooled - begin)
        self._pooled = len(context.tokens) + 1

    def _better_guess(self, context: Context, window: list[int], ngram: Ngram) -> list[int]:
        """Return the guess to try where only one can be tried at each position: the window, or the
        n-gram and what of the window stands behind it.
        """
        begin, last_window, last_ngram = self._compared
        text = [*context.tokens[begin:], context.root]
        gain = common_prefix(last_ngram, text) - common_prefix(last_window, text)
        self._advantage = _DECAY * self._advantage + gain
        self._compared = (len(context.tokens) + 1, tuple(window), ngram)
        return [*ngram, *window[len(ngram) :]] if self._advantage >= 0 else window

    def _last_tokens(self, context: Context) -> list[int]:
        """Return the tokens by which the pool is looked up, the root last."""
        start = max(0, len(context.tokens) + 1 - MAX_KEY_LENGTH)
        return [*context.tokens[start:], context.root]

    @override
    def rewind(self, length: int) -> None:
        """Forget the pool and the window, and seed the random fill, so that a reply can be
        repeated, however much of its prompt was read before.
        """
        self._random.seed(0)
        self._pool.clear()
        self._length, self._trajectories, self._pooled = 0, [], 0
        self._advantage, self._compared = 0.0, (0, (), ())

    @property
    @override
    def idle(self) -> str:
        return idle_reason(self.window + self.branches, is_explicit=self.is_explicit)

    @override
    def describe(self) -> str:
        where = f"{self.branches} n-grams beside it" if self.takes_trees else "or an n-gram"
        pool = f", {where}" if self.branches else ""
        return self._with_idle(f"window {self.window}{pool}")


def _window_and_branches(
    options: JacobiOptions, costs: Costs | None, takes_trees: bool
) -> tuple[int, int]:
    """Return a window that is as long as pays, and how many n-grams are tried beside it, if both
    pay.

    Args:
        options: what the person chose.
        costs: the seconds of a target forward; None if they were not measured.
        takes_trees: whether n-grams make the forward wider.
    """
    choices = (_POOL_BRANCHES, 0) if options.pool is None else (options.pool,)
    window = branches = 0
    for branches in choices:  # a window may pay alone where both together do not
        other_nodes = branches * options.ngram if takes_trees else 0
        window = draft_length(options.window, _MAX_WINDOW, costs, other_nodes=other_nodes)
        if window:
            break
    return window, branches


def _add_text(pool: NgramPool, text: Sequence[int], start: int) -> None:
    """Add the n-grams of a text that end after its first `start` tokens."""
    for end in range(max(start, pool.length), len(text)):
        pool.add(text[max(0, end + 1 - pool.length - MAX_KEY_LENGTH) : end + 1])


METHOD = Jacobi
