"""Speculative sampling: a small language model drafts a chain, the target checks it.

Leviathan et al. 2023 (arXiv 2211.17192) and Chen et al. 2023 (arXiv 2302.01318): the same rule,
told twice. The draft model keeps its own cache; what the target refused is forgotten, what it
accepted need not be read again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from nfox.decoding.cache import common_prefix
from nfox.decoding.costs import Costs, idle_reason, sample_cache, time_call
from nfox.decoding.drafter import Context
from nfox.decoding.target import Score, Target
from nfox.decoding.tree import TokenTree
from nfox.decoding.tree_shapes import MAX_NODES, NodeBudget, TreeShape
from nfox.decoding.verify import Draw
from nfox.drafters.common.method import (
    DrafterInputs,
    Method,
    Options,
    SavedWeights,
    WeightSources,
    option,
    weights_beside,
)
from nfox.errors import ModelError, UsageError
from nfox.export.formats import DraftModel
from nfox.files.hub import HubOptions, file_of, model_files, read_json
from nfox.heads import checkpoint
from nfox.models import fused_llama as lean
from nfox.models.options import LoadedModel
from nfox.models.transformers_target import TransformersTarget

_GAMMA = 4  # tokens of a published chain
_WIDTH = 10  # guesses tried in one place
_DEPTH = 8  # tokens that the chance of all of them is rarely worth going beyond


@dataclass(frozen=True)
class SpecOptions(Options):
    """See `nfox methods`."""

    gamma: int | None = option(
        None, f"tokens drafted in every step; by default as many as pay, {_DEPTH} at most"
    )
    branches: int | None = option(
        None,
        "guesses in one place, where the model takes trees and the rule is `exact` or `typical`; "
        f"by default those that pay, and 1 where gamma is given; {_WIDTH} at most",
    )

    def __post_init__(self) -> None:
        if (self.gamma or 0) < 0:
            raise UsageError(f"gamma must not be negative: {self.gamma}")
        if self.branches is not None and not 1 <= self.branches <= _WIDTH:
            raise UsageError(f"there are 1 to {_WIDTH} branches, not {self.branches}")


class Speculative(Method):
    """Propose a chain drawn from a draft model, and beside each token what came next to it.

    Args:
        draft: the draft model.
        vocabulary: the target's; the draft model's logits are cut or padded to it.
        gamma: how deep is drafted at most.
        branches: guesses in one place at most; the first is drafted on from. Needs a target that
            takes trees; a rule that needs q draws only one.
        budget: of nodes and of drafting; with them a step drafts on, and tries a guess, while that
            is likely enough to pay. Without them it always drafts `gamma` deep.
        name: of the draft model, for the header.
        score: how the draft model is run; by default the shortest way there is.
        given: whether the person chose gamma.
    """

    summary = "a small draft model guesses, the target checks (speculative sampling)"
    needs = "a draft model: --draft-model, or <model>/nfox/spec/"
    rank = 50  # who names a draft model wants it; of what comes with nfox it is the fastest
    options = SpecOptions
    exchange_type = DraftModel

    def __init__(
        self,
        draft: TransformersTarget,
        vocabulary: int,
        gamma: int = _GAMMA,
        branches: int = 1,
        budget: NodeBudget | None = None,
        name: str = "",
        *,
        score: Score | None = None,
        given: bool = True,
    ) -> None:
        self.draft = draft
        self.vocabulary_size = vocabulary
        self.gamma = gamma
        self.branches = branches
        self.budget = budget
        self.name = name
        self.given = given
        self.cache = draft.new_cache()
        self._score = score or (lean.fused_score(draft) if gamma else draft.score)
        self._agreed = 0  # so many of the cache's tokens are known to be the target's

    @override
    @classmethod
    def locate(cls, model: str, sources: WeightSources) -> str | None:
        return sources.draft_model or weights_beside(model, "spec")

    @override
    @classmethod
    def inspect(cls, location: str, hub: HubOptions) -> checkpoint.HeadsInfo | None:
        """Any model can be a draft model."""
        config = _json(location, "config.json", hub)
        if not config.get("architectures"):
            return None
        base = str(_json(location, checkpoint.TRAINING_FILE, hub).get("base", ""))
        return checkpoint.HeadsInfo(method=cls.method(), base=base, config=config)

    @override
    @classmethod
    def to_exchange(cls, weights: SavedWeights) -> DraftModel:
        files, info = model_files(weights.location, weights.hub), weights.info
        base_config = _json(weights.base, "config.json", weights.hub)
        return DraftModel(info.base, files, info.config, base_config, _GAMMA)

    @override
    @classmethod
    def build(cls, inputs: DrafterInputs, options: SpecOptions) -> Speculative:
        draft = inputs.load_draft_model()
        check_pair(inputs.model, draft)
        target, gamma, budget, score = inputs.model.target, options.gamma, None, None
        branches = options.branches or (_WIDTH if gamma is None else 1)
        if gamma is None:
            score = lean.fused_score(draft.target)
            seconds = _seconds(target, draft.target, score)
            gamma = inputs.draft_length(None, _DEPTH, seconds)
            budget = _budget(inputs.costs, gamma, seconds)
            gamma = gamma and _DEPTH
        return cls(
            draft.target,
            target.vocabulary_size,
            gamma,
            branches if target.proposals == "trees" else 1,
            budget,
            draft.name,
            score=score,
            given=options.gamma is not None,
        )

    @override
    def propose(self, context: Context) -> TokenTree:
        length = min(self.gamma, context.max_depth)
        if len(context.tokens) + length >= self.draft.max_context or length < 1:
            return TokenTree.chain(context.root)
        past = self._known([*context.tokens, context.root])
        feed = self._catch_up(context, past)
        draws: list[Draw] = []
        chance = 1.0  # that all of the chain so far is right
        while len(draws) < length and not (self.budget and chance < self.budget.min_chance):
            logits, hidden = self._score(feed, self.cache)
            self.cache.commit(feed, range(len(feed)), hidden)
            draws.append(context.rule.draw(self._fit(logits[-1]), past, self.branches))
            first = draws[-1].tokens[0]
            chance *= draws[-1].probabilities[0]
            past.append(first)
            feed = TokenTree.chain(first)
        return self._tree(context.root, draws)

    def _tree(self, root: int, draws: list[Draw]) -> TokenTree:
        """Return the guesses to try. Those that were drawn by a q are all tried: leaving one out
        because of what it is would bias the draft.
        """
        guesses = [draw.tokens for draw in draws]
        rows = [draw.q for draw in draws if draw.q is not None]
        if rows:
            q = torch.stack([torch.zeros_like(rows[0]), *rows])
            return TokenTree.chain(root, [tokens[0] for tokens in guesses], q)
        paths = _fork(draws)
        chosen = self.budget.select(paths) if self.budget else [path for path, _ in paths]
        return TreeShape(tuple(chosen)).fill(root, guesses, len(guesses))

    def _catch_up(self, context: Context, past: list[int]) -> TokenTree:
        """Forget refused guesses and read what is missing; return the chain to score first."""
        if context.encoder_ids != self.cache.encoder_ids:
            self.cache.reuse([], context.encoder_ids)
            self._agreed = 0
        start = min(self._agreed, len(self.cache.tokens))
        self.cache.truncate(common_prefix(self.cache.tokens, past[:-1], start))
        if len(past) - len(self.cache.tokens) > self.gamma + 1:  # it joins late
            self.draft.read(past[len(self.cache.tokens) : -1], self.cache)
        self._agreed = len(context.tokens)
        missing = past[len(self.cache.tokens) :]
        return TokenTree.chain(missing[0], missing[1:])

    def _known(self, tokens: list[int]) -> list[int]:
        """Return what the draft model reads: its last token where it has no such embedding."""
        last = self.draft.vocabulary_size - 1
        return (
            tokens if last >= self.vocabulary_size - 1 else [min(token, last) for token in tokens]
        )

    def _fit(self, logits: Tensor) -> Tensor:
        """Cut or pad [V'] logits to the target's vocabulary; what is padded is never drawn."""
        missing = self.vocabulary_size - logits.shape[-1]
        if missing <= 0:
            return logits[: self.vocabulary_size]
        return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf)

    @override
    def rewind(self, length: int) -> None:
        """The next proposal looks at all of the past, since other methods
        may have changed it meanwhile.
        """
        self.cache.truncate(length)
        self._agreed = 0

    @override
    def describe(self) -> str:
        idle = idle_reason(self.gamma, is_explicit=self.given)
        most = "at most " if self.budget else ""
        size = f"gamma {most}{self.gamma}, branches {most}{self.branches}"
        return f"draft model {self.name}, {size}{idle}"


def _json(location: str, name: str, hub: HubOptions) -> dict[str, Any]:
    """Read a JSON object of a folder or hub repository; {} if it has none."""
    path = file_of(location, name, hub)
    return read_json(path) if path else {}


def _fork(draws: list[Draw]) -> list[tuple[tuple[int, ...], float]]:
    """Return the chain of first guesses, and what stands beside each: paths of ranks, and how
    likely they are, the likeliest first, each after the one it goes on from.
    """
    paths: list[tuple[tuple[int, ...], float]] = []
    chain: tuple[int, ...] = ()
    before = 1.0
    for draw in draws:
        paths += [
            ((*chain, rank), before * chance) for rank, chance in enumerate(draw.probabilities)
        ]
        chain, before = (*chain, 0), before * draw.probabilities[0]
    return sorted(paths, key=lambda path: -path[1])


def _seconds(target: Target, draft: Target, score: Score) -> float:
    """Return the seconds of a drafted token, timed as when decoding: after a forward of the target,
    which leaves nothing of the draft model in the processor's caches.
    """
    ours, theirs, tree = sample_cache(target), sample_cache(draft), TokenTree.chain(0)
    times: list[float] = []
    begin = time.perf_counter()
    while not times or (len(times) < 5 and time.perf_counter() - begin < 0.2):
        target.score(tree, ours)
        times.append(time_call(partial(score, tree, theirs), draft.device))
    return min(times)


def _budget(costs: Costs | None, gamma: int, seconds: float) -> NodeBudget:
    """Return what nodes cost, and a token more of the chain.

    Args:
        costs: of the target.
        gamma: the draft length that promises the most.
        seconds: that the draft model takes for a token.
    """
    if costs is None:
        return NodeBudget(MAX_NODES - 1)
    rate = costs.speedup(gamma, draft_seconds=seconds) / costs.forward_seconds(1)
    return NodeBudget(MAX_NODES - 1, costs, rate, seconds)


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
    if draft.target.is_encoder_decoder != target.target.is_encoder_decoder:
        kinds = {True: "an encoder-decoder", False: "a decoder-only"}
        ours, theirs = (kinds[model.target.is_encoder_decoder] for model in (target, draft))
        raise ModelError(
            f"{target.name} is {ours} model, the draft model {draft.name} is {theirs} one",
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
