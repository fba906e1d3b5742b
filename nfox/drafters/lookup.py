"""Prompt lookup: what followed the last few tokens when they last occurred.

Saxena 2023 (github.com/apoorvumang/prompt-lookup-decoding). Needs nothing, and pays where a reply
repeats its prompt: summaries, code edits, names and numbers in a dialogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import override

from nfox.counting import counted
from nfox.decoding.costs import Costs, draft_length, idle_reason
from nfox.decoding.drafter import Context
from nfox.decoding.node_budget import NodeBudget
from nfox.decoding.tree import TokenTree
from nfox.drafters.common.free_method import FreeMethod
from nfox.drafters.common.guess_record import GuessRecord
from nfox.drafters.common.method import DrafterInputs, Options, option
from nfox.errors import UsageError

_MAX_GAMMA = 16  # tokens that are drafted at most, where the person chose no number
_LONGEST = 16  # equal tokens; more of them do not make a guess surer
_NO_WORD = "no word came a second time"
_RIGHT = ((0.22, 0.65), (0.5, 0.7), (0.6, 0.7), (0.67, 0.82), (0.9, 0.87), (0.95, 0.95))
"""By kind, from 1: how often the first token of a guess is right, and each further one after a
right one, in 140 answers of SmolLM2-135M to its own questions."""


@dataclass(frozen=True)
class LookupOptions(Options):
    """What a person can set for prompt lookup, by `-o gamma=4`."""

    gamma: int | None = option(
        None, "tokens drafted in every step; by default up to 16, as many as pay in each"
    )
    ngram: int = option(3, "the longest run of last tokens looked up; shorter ones follow")

    def __post_init__(self) -> None:
        if (self.gamma or 0) < 0 or self.ngram < 1:
            raise UsageError("lookup needs gamma >= 0 and ngram >= 1")


class Lookup(FreeMethod):
    """Propose the tokens after the latest earlier occurrence of the last n tokens: as many as pay,
    by how often such guesses were right.

    Args:
        gamma: the most tokens that are drafted.
        ngram: the largest n; if the last n tokens did not occur before, fewer are looked up.
        costs: the seconds of a target forward over N tokens; without them `gamma` tokens are
            drafted in every step.
        is_explicit: whether the person chose gamma.
    """

    summary = "copies what followed the same few words earlier in the text"
    rank = 1
    options = LookupOptions

    def __init__(
        self,
        gamma: int = _MAX_GAMMA,
        ngram: int = 3,
        costs: Costs | None = None,
        *,
        is_explicit: bool = True,
    ) -> None:
        self.gamma = gamma
        self.ngram = ngram
        self.is_explicit = is_explicit
        self._record = GuessRecord(dict(enumerate(_RIGHT, 1)))
        self._budget = _budget(costs)
        self._text: list[int] = []  # the tokens that an encoder has read, then the target's
        self._next: dict[tuple[int, ...], int] = {}  # by n-gram: the position after its latest end
        self._indexed = 0  # so many tokens of the text are in `_next`
        self.nothing_found = _NO_WORD

    @override
    @classmethod
    def build(cls, inputs: DrafterInputs, options: LookupOptions) -> Lookup:
        gamma, is_explicit = options.gamma, options.gamma is not None
        costs = None if is_explicit else inputs.costs
        longest = draft_length(gamma, _MAX_GAMMA, costs)
        return cls(longest, options.ngram, costs, is_explicit=is_explicit)

    @override
    def plan(self, costs: Costs) -> None:
        if not self.is_explicit:
            self.gamma, self._budget = costs.best_gamma(_MAX_GAMMA), _budget(costs)

    @override
    def propose(self, context: Context) -> TokenTree:
        guess, reach = self.guess(context)
        if self._budget and not context.rule.follows_drafts:  # else a plan has one draft
            guess = guess[: len(self._budget.select(enumerate(reach)))]
        return TokenTree.chain(context.root, guess)

    @override
    def guess(self, context: Context) -> tuple[Sequence[int], Sequence[float]]:
        self._record.read(context.tokens, context.root)
        self._read(context)
        last_tokens = [*self._text[-self.ngram :], context.root]
        for size in range(min(self.ngram, len(last_tokens)), 0, -1):
            position = self._next.get(tuple(last_tokens[-size:]))
            if position is not None:
                kind = self._sureness(position, size)
                length = min(self.gamma, context.max_depth)
                guess = self._continuation(position, context.root, length)
                self._record.follow(len(context.tokens) + 1, guess, kind)
                self.nothing_found = super().nothing_found
                return guess, self._record.reach(kind, len(guess))
        return (), ()

    def _sureness(self, position: int, size: int) -> int:
        """Return a number for how many of the last tokens stand before a position too: 1, 2, 3 for
        as many, 4 for less than 8, 5 for less than 16, 6.

        Args:
            position: in the text.
            size: that many are known to, the root among them.
        """
        text, end = self._text, len(self._text)
        while size < _LONGEST and size < position and text[position - 1 - size] == text[end - size]:
            size += 1
        return size if size < 4 else 1 + min(size, _LONGEST).bit_length()

    def _continuation(self, position: int, root: int, length: int) -> Sequence[int]:
        """Return `length` tokens from a position on, or fewer where the text ends, whose last token
        is the root.
        """
        tokens = self._text[position : position + length]
        return [*tokens, root] if len(tokens) < length else tokens

    def _read(self, context: Context) -> None:
        """Add the tokens that were read since the last call to the text, and index its n-grams."""
        encoder_ids = context.encoder_ids or ()
        if not self._text:
            self._text += encoder_ids
        self._text += context.tokens[len(self._text) - len(encoder_ids) :]
        # The n-gram that ends the text has no successor yet; it is indexed when it has one.
        for position in range(max(self._indexed, 1), len(self._text)):
            for size in range(1, min(self.ngram, position) + 1):
                self._next[tuple(self._text[position - size : position])] = position
        self._indexed = max(self._indexed, len(self._text))

    @override
    def rewind(self, length: int) -> None:
        """Forget all of the text. It is indexed anew for every reply, which takes a few
        milliseconds, since other methods may have changed it meanwhile.
        """
        self._text, self._next, self._indexed = [], {}, 0
        self.nothing_found = _NO_WORD
        self._record.forget_guess()

    @property
    @override
    def idle(self) -> str:
        return idle_reason(self.gamma, is_explicit=self.is_explicit)

    @override
    def describe(self) -> str:
        return self._with_idle(f"up to {counted(self.gamma, 'token')} after the last {self.ngram}")


def _budget(costs: Costs | None) -> NodeBudget | None:
    """Return what nodes cost beside plain decoding; None where that is not known."""
    return NodeBudget(_MAX_GAMMA, costs, 1 / costs.forward_seconds(1)) if costs else None


METHOD = Lookup
