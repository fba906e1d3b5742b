"""Speculative sampling: a small language model drafts a chain, the target checks it.

Leviathan et al. 2023 (arXiv 2211.17192) and Chen et al. 2023 (arXiv 2302.01318): the same rule,
told twice. The draft model keeps its own cache; what the target refused is forgotten, what it
accepted need not be read again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nfox.cache import common_prefix
from nfox.costs import idleness, measure
from nfox.drafters.base import (
    Context,
    Drafter,
    Options,
    Parts,
    Places,
    option,
    weights_beside,
)
from nfox.errors import ModelError, UsageError
from nfox.loading import LoadedModel
from nfox.target import Target
from nfox.tree import TokenTree


@dataclass(frozen=True)
class SpecOptions(Options):
    """See `nfox methods`."""

    gamma: int | None = option(
        None, "tokens drafted at most; by default up to 8, as many as pay on this machine"
    )
    confidence: float = option(0.4, "drafting stops after a token less probable than this")
    branches: int = option(
        3, "guesses at each depth, where the model takes trees and the rule is `exact` or `typical`"
    )

    def __post_init__(self) -> None:
        if (self.gamma or 0) < 0:
            raise UsageError(f"gamma must not be negative: {self.gamma}")
        if not 0 <= self.confidence <= 1:
            raise UsageError(f"the confidence is a probability, not {self.confidence}")
        if self.branches < 1:
            raise UsageError(f"there must be at least one branch, not {self.branches}")


class Speculative(Drafter):
    """Propose a chain drawn from a draft model, and beside each token what came second.

    Args:
        draft: the draft model.
        vocabulary: the target's; the draft model's logits are cut or padded to it.
        gamma: how deep is drafted at most.
        confidence: drafting stops after a token less probable than this; the token stays, since
            dropping it because of what it is would bias the draft.
        branches: guesses at each depth; the first is drafted on from. Needs a target that takes
            trees; a rule that needs q draws only one.
        name: of the draft model, for the header.
        chain: how deep is drafted under a rule that draws one guess at a place; gamma by default.
        given: whether the person chose gamma.
    """

    summary = "a small draft model guesses, the target checks (speculative sampling)"
    needs = "a draft model: --draft-model, or <model>/nfox/spec/"
    rank = 10
    options = SpecOptions

    def __init__(
        self,
        draft: Target,
        vocabulary: int,
        gamma: int = 4,
        confidence: float = 0.0,
        branches: int = 1,
        name: str = "",
        *,
        chain: int | None = None,
        given: bool = True,
    ) -> None:
        self.draft = draft
        self.vocabulary = vocabulary
        self.gamma = gamma
        self.chain = gamma if chain is None else chain
        self.given = given
        self.branches = branches
        self.confidence = confidence
        self.name = name
        self.cache = draft.new_cache()
        self._agreed = 0  # so many of the cache's tokens are known to be the target's

    @classmethod
    def find(cls, model: str, given: Places) -> str | None:
        """See `Drafter.find`."""
        return given.draft_model or weights_beside(model, "spec")

    @classmethod
    def build(cls, parts: Parts, options: SpecOptions) -> Speculative:
        """See `Drafter.build`."""
        draft = parts.load_weights()
        check_pair(parts.model, draft)
        target = parts.model.target
        branches = options.branches if target.proposals == "trees" else 1
        seconds = measure(draft.target, budget=0.2).at(1)
        chain = parts.draft_length(options.gamma, 8, seconds)
        gamma = parts.draft_length(options.gamma, 8, seconds, branches)
        if not gamma:  # a chain may pay where wider trees do not
            gamma, branches = chain, 1
        return cls(
            draft.target,
            target.vocabulary,
            gamma,
            options.confidence,
            branches,
            draft.name,
            chain=chain,
            given=options.gamma is not None,
        )

    def propose(self, context: Context) -> TokenTree:
        """See `Drafter.propose`."""
        gamma = self.chain if context.rule.draws_one else self.gamma
        length = min(gamma, context.room)
        if len(context.tokens) + length >= self.draft.max_context or length < 1:
            return TokenTree.chain(context.root)
        past = self._known([*context.tokens, context.root])
        feed = self._catch_up(context, past)
        tokens, parents, node = [context.root], [-1], 0
        rows: list[Tensor] = []
        for _ in range(length):
            logits, hidden = self.draft.score(feed, self.cache)
            self.cache.commit(feed, range(len(feed)), hidden)
            row = self._fit(logits[-1])
            guesses, q = context.rule.draw(row, past, self.branches)
            parents += [node] * len(guesses)
            node = len(tokens)
            tokens += guesses
            rows += [] if q is None else [q]
            if self.confidence and float(row.softmax(-1)[guesses[0]]) < self.confidence:
                break
            past.append(guesses[0])
            feed = TokenTree.chain(guesses[0])
        q = torch.stack([torch.zeros_like(rows[0]), *rows]) if rows else None
        return TokenTree(tuple(tokens), tuple(parents), q)

    def _catch_up(self, context: Context, past: list[int]) -> TokenTree:
        """Forget refused guesses and read what is missing; return the chain to score first."""
        if context.source != self.cache.source:
            self.cache.reuse([], context.source)
            self._agreed = 0
        start = min(self._agreed, len(self.cache.tokens))
        self.cache.truncate(common_prefix(self.cache.tokens, past[:-1], start))
        if len(past) - len(self.cache.tokens) > max(self.gamma, self.chain) + 1:  # it joins late
            self.draft.read(past[len(self.cache.tokens) : -1], self.cache)
        self._agreed = len(context.tokens)
        missing = past[len(self.cache.tokens) :]
        return TokenTree.chain(missing[0], missing[1:])

    def _known(self, tokens: list[int]) -> list[int]:
        """Return what the draft model reads: its last token where it has no such embedding."""
        last = self.draft.vocabulary - 1
        return tokens if last >= self.vocabulary - 1 else [min(token, last) for token in tokens]

    def _fit(self, logits: Tensor) -> Tensor:
        """Cut or pad [V'] logits to the target's vocabulary; what is padded is never drawn."""
        missing = self.vocabulary - logits.shape[-1]
        if missing <= 0:
            return logits[: self.vocabulary]
        return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf)

    def truncate(self, length: int) -> None:
        """See `Drafter.truncate`. The next proposal looks at all of the past, since other methods
        may have changed it meanwhile.
        """
        self._agreed = 0

    def describe(self) -> str:
        """See `Drafter.describe`."""
        idle = idleness(self.gamma, given=self.given)
        said = f"draft model {self.name}, gamma {self.gamma}, branches {self.branches}{idle}"
        return said if self.chain == self.gamma else f"{said} (gamma {self.chain} without branches)"


def check_pair(target: LoadedModel, draft: LoadedModel) -> None:
    """Refuse a draft model that cannot draft for this target.

    Sizes of vocabularies may differ (padding of the embedding), tokenizers may not.

    Raises:
        ModelError: if it cannot.
    """
    if draft.target.proposals == "nothing":
        raise ModelError(
            f"{draft.name} cannot draft: its recurrent state cannot forget a refused token",
            "choose a transformer as draft model",
        )
    if draft.target.encodes != target.target.encodes:
        kinds = {True: "an encoder-decoder", False: "a decoder-only"}
        raise ModelError(
            f"{target.name} is {kinds[target.target.encodes]} model, the draft model {draft.name} "
            f"is {kinds[draft.target.encodes]} one",
            "choose two of one kind",
        )
    if draft.tokenizer is None or target.tokenizer is None:
        return
    ours, theirs = target.tokenizer.get_vocab(), draft.tokenizer.get_vocab()
    common = ours.keys() & theirs.keys()
    same = sum(ours[token] == theirs[token] for token in common)
    if same < 0.98 * min(len(ours), len(theirs)) or same < len(common):
        raise ModelError(
            f"the draft model {draft.name} has another tokenizer than {target.name}: {same} of "
            f"{min(len(ours), len(theirs))} tokens are the same",
            "choose a draft model of the same family",
        )


METHOD = Speculative
