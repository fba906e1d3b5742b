"""Speculative sampling: a small language model drafts a chain, the target checks it.

Leviathan et al. 2023 (arXiv 2211.17192) and Chen et al. 2023 (arXiv 2302.01318): the same rule,
told twice. The draft model keeps its own cache; what the target refused is forgotten, what it
accepted need not be read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from nfox.decoding import clock
from nfox.decoding.cache import common_prefix
from nfox.decoding.costs import Costs, idle_reason, sample_cache, time_call
from nfox.decoding.drafter import Context
from nfox.decoding.node_budget import NodeBudget
from nfox.decoding.rules import make_rule
from nfox.decoding.sampling import Sampling
from nfox.decoding.target import Target, token_range
from nfox.decoding.tree import TokenTree
from nfox.decoding.tree_shapes import MAX_NODES, Path, TreeShape, by_depth, iter_likeliest
from nfox.decoding.verify import Draw, Rule
from nfox.drafters.common.method import (
    DrafterInputs,
    Method,
    Options,
    SavedWeights,
    WeightSources,
    option,
)
from nfox.errors import UsageError
from nfox.export.formats import DraftModel
from nfox.files.hub import HubOptions, json_of, model_files
from nfox.files.model_names import weights_beside
from nfox.heads import checkpoint
from nfox.known_models import without_package
from nfox.models.draft_pairs import check_pair
from nfox.models.options import LoadedModel
from nfox.models.transformers_target import TransformersTarget

_GAMMA = 4  # tokens of a published chain
_MAX_BRANCHES = 10  # guesses tried for one position
_MAX_GAMMA = 8  # where the person chose none: all of a longer chain is rarely likely enough to pay


@dataclass(frozen=True)
class SpecOptions(Options):
    """What a person can set for speculative sampling, by `-o gamma=4`."""

    gamma: int | None = option(
        None, f"tokens drafted in every step; by default as many as pay, {_MAX_GAMMA} at most"
    )
    branches: int | None = option(
        None,
        "guesses in one place, where the model takes trees and the rule is `exact` or `typical`; "
        f"by default those that pay, and 1 where gamma is given; {_MAX_BRANCHES} at most",
    )

    def __post_init__(self) -> None:
        if (self.gamma or 0) < 0:
            raise UsageError(f"gamma must not be negative: {self.gamma}")
        if self.branches is not None and not 1 <= self.branches <= _MAX_BRANCHES:
            raise UsageError(f"there are 1 to {_MAX_BRANCHES} branches, not {self.branches}")


class Speculative(Method):
    """Propose a chain drawn from a draft model, and beside each of its tokens the next best ones.

    Args:
        draft: the draft model.
        vocabulary_size: the target's; the draft model's logits are cut or padded to it.
        gamma: the most tokens of the chain.
        branches: the most guesses for one position, the first of which the chain goes on from. More
            than one needs a target that takes trees; a rule that needs q draws only one.
        budget: what nodes and drafting cost; with it a step drafts on, and tries a guess, while
            that is likely enough to pay. Without it the chain always has `gamma` tokens.
        name: the name of the draft model, for the header.
        is_explicit: whether the person chose gamma.
        target: the target, after whose forward drafting is timed.
    """

    summary = "a small draft model guesses, the target checks (speculative sampling)"
    needs = "a draft model: --draft-model, or <model>/nfox/spec/"
    rank = 50  # who names a draft model wants it; of what comes with nfox it is the fastest
    options = SpecOptions
    exchange_type = DraftModel

    def __init__(
        self,
        draft: TransformersTarget,
        vocabulary_size: int,
        gamma: int = _GAMMA,
        branches: int = 1,
        budget: NodeBudget | None = None,
        name: str = "",
        *,
        is_explicit: bool = True,
        target: Target | None = None,
    ) -> None:
        self.draft = draft
        self.vocabulary_size = vocabulary_size
        self.gamma = gamma
        self.branches = branches
        self.budget = budget
        self.name = name
        self.is_explicit = is_explicit
        self.target = target
        self.loaded: LoadedModel | None = None  # others can have it while this one keeps it
        self.cache = draft.new_cache()
        self._matched = 0  # so many of the cache's tokens are known to be the target's
        # The native library drafts a chain of the likeliest tokens in one call. For rules that draw
        # otherwise, which takes a call for each token: gamma and budget, and how many times as long
        # drafting takes.
        self._by_steps: tuple[int, NodeBudget] | None = None
        self._times_by_steps: float | None = None

    @override
    @classmethod
    def locate(cls, model: str, sources: WeightSources) -> str | None:
        return sources.draft_model or weights_beside(model, "spec")

    @override
    @classmethod
    def inspect(cls, location: str, hub: HubOptions) -> checkpoint.HeadsInfo | None:
        """Return the config of the model in a folder or hub repository, since any model can be a
        draft model; None if there is none.
        """
        config = json_of(location, "config.json", hub)
        if not config.get("architectures"):
            return None
        training = json_of(location, checkpoint.TRAINING_FILE, hub)
        base = str(training.get("base", ""))
        return checkpoint.HeadsInfo(method=cls.method_name(), base=base, config=config)

    @override
    @classmethod
    def to_exchange(cls, weights: SavedWeights) -> DraftModel:
        files, info = model_files(weights.location, weights.hub), weights.info
        base_config = json_of(weights.base, "config.json", weights.hub)
        return DraftModel(info.base, files, info.config, base_config, _GAMMA)

    @override
    @classmethod
    def build(cls, inputs: DrafterInputs, options: SpecOptions) -> Speculative:
        draft = inputs.load_draft_model()
        check_pair(inputs.model, draft)
        target, is_explicit = inputs.model.target, options.gamma is not None
        branches = options.branches or (1 if is_explicit else _MAX_BRANCHES)
        drafter = cls(
            draft.target,
            target.vocabulary_size,
            _MAX_GAMMA if options.gamma is None else options.gamma,
            branches if target.proposals == "trees" else 1,
            None if is_explicit else NodeBudget(MAX_NODES - 1),
            draft.name,
            is_explicit=is_explicit,
            target=target,
        )
        drafter.loaded = draft
        if inputs.costs:
            drafter.plan(inputs.costs)
        return drafter

    @override
    def plan(self, costs: Costs) -> None:
        if self.is_explicit or self.target is None:
            return
        seconds = self._measure_draft_seconds(self.target, make_rule())
        self.gamma, self.budget = _planned(costs, seconds)
        if self.draft.chain_drafter:
            if self._times_by_steps is None:
                penalised = make_rule(sampling=Sampling(repetition_penalty=1.1))
                by_steps = self._measure_draft_seconds(self.target, penalised)
                self._times_by_steps = max(by_steps / seconds, 1.0)
            self._by_steps = _planned(costs, seconds * self._times_by_steps)

    def _measure_draft_seconds(self, target: Target, rule: Rule) -> float:
        """Return the seconds of drafting one token of a chain, timed as when decoding: after a
        forward of the target, which leaves nothing of the draft model in the processor's caches.

        Args:
            target: the target.
            rule: how it draws; it says whether a chain takes one call.
        """
        cache, root = sample_cache(target), TokenTree.chain(0)
        propose = partial(self.propose, Context(cache, 0, [], [], _GAMMA, rule))
        kept = self.gamma, self.branches, self.budget, self._by_steps, self.cache, self._matched
        self.gamma, self.branches, self.budget, self._by_steps = _GAMMA, 1, None, None
        self.cache, self._matched = self.draft.new_cache(), 0
        times: list[float] = []
        try:
            propose()  # reads the past, too
            begin = clock.now()
            while not times or (len(times) < 5 and clock.now() - begin < 0.2):
                target.score(root, cache)
                times.append(time_call(propose, self.draft.device))
        finally:
            self.gamma, self.branches, self.budget, self._by_steps, self.cache, self._matched = kept
        return min(times) / _GAMMA

    @override
    def propose(self, context: Context) -> TokenTree:
        gamma, budget = self.gamma, self.budget
        if self._by_steps and not context.rule.draws_likeliest:
            gamma, budget = self._by_steps
        length = min(gamma, context.max_depth, self.draft.max_context - len(context.tokens))
        if length < 1:
            return TokenTree.chain(context.root)
        unread = self._catch_up(context)
        if unread is None:
            return TokenTree.chain(context.root)
        least_chance = budget.min_chance if budget else 0.0
        drafter = self.draft.chain_drafter if context.rule.draws_likeliest else None
        if drafter:
            size = min(self.vocabulary_size, self.draft.vocabulary_size)
            first = len(context.tokens) + 1
            noises = [context.rule.noise_at(first + depth) for depth in range(length)]
            rows = [noise.in_logits(token_range(size)) for noise in noises if noise]
            draws = drafter.draft(
                unread,
                self.cache,
                length=length,
                width=min(self.branches, size),
                vocabulary_size=size,
                least_chance=least_chance,
                noise=np.stack(rows) if rows else None,
            )
        else:
            draws = self._draw(context, unread, length, least_chance)
        return _tree(context.root, draws, budget)

    def _draw(
        self,
        context: Context,
        unread: TokenTree,
        length: int,
        least_chance: float,
    ) -> list[Draw]:
        """Return the guesses for each depth as the rule draws them, which is one forward for each.

        Args:
            context: of this step.
            unread: the last tokens up to the root, which the draft model has not read.
            length: the most tokens of the chain.
            least_chance: it ends where the chain so far is all right with less.
        """
        draws: list[Draw] = []
        text = self._readable([*context.tokens, context.root])  # with the drafted tokens behind it
        chain_probability = 1.0  # that all tokens of the chain so far are right
        while len(draws) < length and chain_probability >= least_chance:
            logits, hidden = self.draft.score(unread, self.cache)
            self.cache.commit(unread, range(len(unread)), hidden)
            draw = context.rule.draw(self._fit_logits(logits[-1]), text, self.branches)
            if not draw.tokens:
                break
            draws.append(draw)
            chain_probability *= draw.probabilities[0]
            text.append(draw.tokens[0])
            unread = TokenTree.chain(draw.tokens[0])
        return draws

    def _catch_up(self, context: Context) -> TokenTree | None:
        """Return a chain of the tokens that the draft model has not read, the root last; None if
        the reply was cancelled while many were read.
        """
        if self.unread_count(context) > self.gamma:  # it joins a conversation late
            missed = self._readable(context.tokens[len(self.cache.tokens) :])
            if not self.draft.read(missed, self.cache, context.cancelled):
                return None
        unread = self._readable([*context.tokens[len(self.cache.tokens) :], context.root])
        return TokenTree.chain(unread[0], unread[1:])

    @override
    def unread_count(self, context: Context) -> int:
        """Forget the guesses that were refused; return how many tokens the draft model lacks."""
        if context.encoder_ids != self.cache.encoder_ids:
            self.cache.reuse([], context.encoder_ids)
            self._matched = 0
        read = len(self.cache.tokens)
        start = min(self._matched, read)
        text = self._readable(context.tokens[start:read])
        self.cache.truncate(start + common_prefix(self.cache.tokens[start:], text))
        self._matched = len(context.tokens)
        return len(context.tokens) - len(self.cache.tokens)

    def _readable(self, tokens: Sequence[int]) -> list[int]:
        """Return tokens as the draft model reads them: ids that it has no embedding for become its
        last one.
        """
        last = self.draft.vocabulary_size - 1
        if last >= self.vocabulary_size - 1:
            return [*tokens]
        return [min(token, last) for token in tokens]

    def _fit_logits(self, logits: Tensor) -> Tensor:
        """Return [V] logits for the target's vocabulary, of the draft model's [V'], cut or padded;
        a token that is padded is never drawn.
        """
        missing = self.vocabulary_size - logits.shape[-1]
        if missing <= 0:
            return logits[: self.vocabulary_size]
        return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf)

    @override
    def rewind(self, length: int) -> None:
        """Forget the tokens after the first `length`. The next proposal compares all of the past,
        since other methods may have changed it meanwhile.
        """
        self.cache.truncate(length)
        self._matched = 0

    @property
    @override
    def idle(self) -> str:
        return idle_reason(self.gamma, is_explicit=self.is_explicit)

    @override
    def describe(self) -> str:
        at_most = "at most " if self.budget else ""
        size = f"gamma {at_most}{self.gamma}, branches {at_most}{self.branches}"
        return self._with_idle(f"draft model {without_package(self.name)}, {size}")


def _planned(costs: Costs, draft_seconds: float) -> tuple[int, NodeBudget]:
    """Return gamma and the budget, within which each step chooses its own length.

    Args:
        costs: of the target's forwards.
        draft_seconds: of drafting one token.
    """
    gamma = costs.best_gamma(_MAX_GAMMA, draft_seconds)
    speedup = costs.speedup(gamma, draft_seconds=draft_seconds)
    speed = speedup / costs.forward_seconds(1)
    return gamma and _MAX_GAMMA, NodeBudget(MAX_NODES - 1, costs, speed, draft_seconds)


def _tree(root: int, draws: list[Draw], budget: NodeBudget | None) -> TokenTree:
    """Return the tree of the guesses to try, of one draw for each depth. Guesses that were
    drawn from a q are all tried: leaving one out because of what it is would bias the draft.
    """
    guesses = [draw.tokens for draw in draws]
    q_rows = [draw.q for draw in draws if draw.q is not None]
    if q_rows:
        q = torch.stack([torch.zeros_like(q_rows[0]), *q_rows])
        return TokenTree.chain(root, [tokens[0] for tokens in guesses], q)
    paths = _guess_paths(draws)
    chosen = budget.select(paths) if budget else [path for path, _ in paths]
    return TreeShape(tuple(chosen)).fill(root, by_depth(guesses), len(guesses))


def _guess_paths(draws: list[Draw]) -> Iterator[tuple[Path, float]]:
    """Yield the paths of ranks of all guesses and how probable each is to be right, the likeliest
    first, so that each path comes after the one that it continues.

    The first guesses of all draws make a chain; the other guesses of a draw are siblings there.
    """

    def chances_after(path: Path) -> Sequence[float]:
        is_drawn = len(path) < len(draws) and not any(path)
        return draws[len(path)].probabilities if is_drawn else ()

    return iter_likeliest(chances_after)


METHOD = Speculative
