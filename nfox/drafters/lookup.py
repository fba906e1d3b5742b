"""Prompt lookup: what followed the last few tokens when they last occurred.

Saxena 2023 (github.com/apoorvumang/prompt-lookup-decoding). Needs nothing, and pays where a reply
repeats its prompt: summaries, code edits, names and numbers in a dialogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import override

from nfox.decoding.costs import idle_reason
from nfox.decoding.drafter import Context
from nfox.decoding.tree import TokenTree
from nfox.drafters.common.method import DrafterInputs, Method, Options, option
from nfox.errors import UsageError


@dataclass(frozen=True)
class LookupOptions(Options):
    """See `nfox methods`."""

    gamma: int | None = option(
        None, "tokens drafted at most; by default up to 8, as many as pay on this machine"
    )
    ngram: int = option(3, "the longest run of last tokens looked up; shorter ones follow")

    def __post_init__(self) -> None:
        if (self.gamma or 0) < 0 or self.ngram < 1:
            raise UsageError("lookup needs gamma >= 0 and ngram >= 1")


class Lookup(Method):
    """Propose the tokens after the latest earlier occurrence of the last n tokens.

    Args:
        gamma: how many tokens are drafted at most.
        ngram: the longest n tried.
        given: whether the person chose gamma.
    """

    summary = "copies what followed the same few words earlier in the text"
    rank = 1
    options = LookupOptions

    def __init__(self, gamma: int = 8, ngram: int = 3, *, given: bool = True) -> None:
        self.gamma = gamma
        self.ngram = ngram
        self.given = given
        self._after: dict[tuple[int, ...], int] = {}
        self._text: list[int] = []
        self._indexed = 0

    @override
    @classmethod
    def build(cls, inputs: DrafterInputs, options: LookupOptions) -> Lookup:
        given = options.gamma is not None
        return cls(inputs.draft_length(options.gamma, 8), options.ngram, given=given)

    @override
    def propose(self, context: Context) -> TokenTree:
        self._follow(context)
        text = [*self._text[-self.ngram :], context.root]
        for size in range(min(self.ngram, len(text)), 0, -1):
            place = self._after.get(tuple(text[-size:]))
            if place is not None:
                span = self._span(place, context.root, min(self.gamma, context.max_depth))
                return TokenTree.chain(context.root, span)
        return TokenTree.chain(context.root)

    def _span(self, place: int, root: int, length: int) -> Sequence[int]:
        """Return what stands at `place` and after it; the text so far ends in the root."""
        span = self._text[place : place + length]
        return [*span, root] if len(span) < length else span

    def _follow(self, context: Context) -> None:
        """Index the n-grams of what has been read since the last call."""
        source = context.encoder_ids or ()
        if not self._text:
            self._text += source
        self._text += context.tokens[len(self._text) - len(source) :]
        # The n-gram that ends the text has no successor yet; it is indexed when it has one.
        for end in range(max(self._indexed, 1), len(self._text)):
            for size in range(1, min(self.ngram, end) + 1):
                self._after[tuple(self._text[end - size : end])] = end
        self._indexed = max(self._indexed, len(self._text))

    @override
    def rewind(self, length: int) -> None:
        """The index is made anew for every reply: it takes a few
        milliseconds, and other methods may have changed the past meanwhile.
        """
        self._text, self._after, self._indexed = [], {}, 0

    @override
    def describe(self) -> str:
        idle = idle_reason(self.gamma, is_explicit=self.given)
        return f"up to {self.gamma} tokens after the last {self.ngram}{idle}"


METHOD = Lookup
