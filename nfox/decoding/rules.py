"""The four acceptance rules: greedy, sample-and-match, rejection and typical acceptance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from nfox.decoding.noise import GumbelNoise, generator_of
from nfox.decoding.sampling import (
    Sampling,
    likeliest_tokens,
    penalise_in_rows,
)
from nfox.decoding.target import as_array, token_range
from nfox.decoding.tree import TokenTree
from nfox.decoding.verify import Draw, Judgement, Noise, Rule, TargetTokens
from nfox.errors import UsageError


def _top_guesses(scores: Tensor, count: int) -> Draw:
    """Return the tokens with the largest of [V] scores, without those that are cut off.

    The target scores a little differently and takes another token where two are close, whether
    noise is in the scores or not: softmax of the scores says how close they are.
    """
    top = scores.softmax(-1).topk(min(count, len(scores)))
    probabilities = top.values.tolist()
    possible = sum(probability > 0 for probability in probabilities)
    return Draw(top.indices.tolist()[:possible], probabilities[:possible])


def _matches(tree: TokenTree, target_tokens: Sequence[int]) -> list[bool]:
    """Return for every node whether it and all before it are the target's own tokens."""
    accepted = [True]
    for token, parent in zip(tree.tokens[1:], tree.parents[1:], strict=True):
        accepted.append(accepted[parent] and target_tokens[parent] == token)
    return accepted


def _penalised(sampling: Sampling, tree: TokenTree, logits: Tensor, past: Sequence[int]) -> Tensor:
    """Return [N, V] logits after the repetition penalty, along each path of the tree."""
    if sampling.repetition_penalty == 1:
        return logits
    seen = set(past)
    unseen: list[set[int]] = []  # tokens of the path to each node that the past lacks
    for token, parent in zip(tree.tokens, tree.parents, strict=True):
        unseen.append((unseen[parent] if parent >= 0 else set()) | ({token} - seen))
    rows = [node for node, tokens in enumerate(unseen) for _ in tokens]
    tokens = [token for tokens in unseen for token in tokens]
    logits = sampling.penalise(logits, seen)
    return penalise_in_rows(logits, sampling.repetition_penalty, rows, tokens)


@dataclass
class Greedy(Rule):
    """Temperature 0: a drafted token is accepted if it is the target's most likely one."""

    sampling: Sampling = field(default_factory=Sampling)
    name: ClassVar[str] = "exact"

    @property
    @override
    def draws_likeliest(self) -> bool:
        return self.sampling.repetition_penalty == 1

    @override
    def judge(self, tree: TokenTree, logits: Tensor, past: Sequence[int]) -> Judgement:
        logits = _penalised(self.sampling, tree, logits, past)
        target_tokens = likeliest_tokens(logits)
        return Judgement(_matches(tree, target_tokens), target_tokens)

    @override
    def draw(self, logits: Tensor, past: Sequence[int], count: int = 1) -> Draw:
        return _top_guesses(self.sampling.penalise(logits, past), count)


@dataclass
class SampleAndMatch(Rule):
    """Sample the target's token after a node; a drafted token that equals it is accepted.

    One draw after each accepted node, and after others where it is asked for, with the same noise
    at one position: so it is lossless on every tree, and one seed gives one text for every method.
    """

    sampling: Sampling
    noise: GumbelNoise
    name: ClassVar[str] = "exact"

    @override
    def judge(self, tree: TokenTree, logits: Tensor, past: Sequence[int]) -> Judgement:
        logits = _penalised(self.sampling, tree, logits, past)
        target_tokens = self._samples(tree, logits, past)
        return Judgement(_matches(tree, target_tokens), target_tokens)

    @override
    def draw(self, logits: Tensor, past: Sequence[int], count: int = 1) -> Draw:
        noise = self._noise_at(len(past)).in_logits(token_range(len(logits)))
        logits = self.sampling.penalise(logits, past)
        return _top_guesses(logits + torch.from_numpy(noise).to(logits.device), count)

    @property
    @override
    def draws_likeliest(self) -> bool:
        return self.sampling.repetition_penalty == 1

    @override
    def noise_at(self, position: int) -> Noise | None:
        return self._noise_at(position)

    def _noise_at(self, position: int) -> Noise:
        return Noise(self.sampling.temperature, partial(self.noise.at, position))

    def _samples(self, tree: TokenTree, logits: Tensor, past: Sequence[int]) -> TargetTokens:
        """Return the target's token after every node, of [N, V] logits after penalties."""
        first, depths, tokens = len(past) + 1, tree.depths, token_range(logits.shape[-1])

        @cache
        def sample(node: int) -> int:
            noise = self.noise.at(first + depths[node], tokens)
            return self.sampling.sample(as_array(logits[node].cpu()), noise)

        return TargetTokens(sample, range(len(tree)))


@dataclass
class Rejection(Rule):
    """Speculative sampling: accept x with probability min(1, p(x) / (l q(x))), else draw from
    max(p - q, 0), normalised.

    Leviathan et al. 2023 (arXiv 2211.17192) and Chen et al. 2023 (arXiv 2302.01318) on a chain;
    Miao et al. 2023 (SpecInfer, arXiv 2305.09781) tries the children of a node in turn. A tree
    without q was not drawn but guessed, which is a q with all its mass on the guess.

    Args:
        sampling: how p and q are made from logits.
        generator: on the CPU; the draws of the draft model and of the target come from it in turn.
        lenience: l in (0, 1]; below 1 more is accepted, and the rule is no longer lossless.
    """

    sampling: Sampling
    generator: torch.Generator
    lenience: float = 1.0
    name: ClassVar[str] = "rejection"
    follows_drafts: ClassVar[bool] = True

    @property
    @override
    def lossless(self) -> bool:
        return self.lenience == 1

    @override
    def judge(self, tree: TokenTree, logits: Tensor, past: Sequence[int]) -> Judgement:
        """Return the one path that is accepted. The target's token after a node off this path is
        the most likely one, since none is drawn there.
        """
        logits = _penalised(self.sampling, tree, logits, past)
        target_tokens = likeliest_tokens(logits)
        accepted = [True] + [False] * (len(tree) - 1)
        node: int | None = 0
        while node is not None:
            children = [child for child in range(1, len(tree)) if tree.parents[child] == node]
            p = self.sampling.log_probabilities(logits[node]).exp().cpu()
            parent, (node, residual) = node, self._try_children(tree, children, p)
            if node is None:
                drawn = torch.multinomial(residual, 1, generator=self.generator)
                target_tokens[parent] = int(drawn)
            else:
                accepted[node], target_tokens[parent] = True, tree.tokens[node]
        return Judgement(accepted, target_tokens)

    def _try_children(
        self, tree: TokenTree, children: Sequence[int], p: Tensor
    ) -> tuple[int | None, Tensor]:
        """Try the children of a node in turn.

        Args:
            tree: what was drafted.
            children: the nodes to try, all of one parent.
            p: [V] the target's distribution after their parent.

        Returns:
            The accepted child and p, or None and the residual distribution [V].
        """
        draft_q = tree.q[children[0]].cpu().to(p) if children and tree.q is not None else None
        for child in children:
            token = tree.tokens[child]
            q = (
                draft_q
                if draft_q is not None
                else torch.zeros_like(p).index_fill(0, torch.tensor(token), 1.0)
            )
            uniform = float(torch.rand((), generator=self.generator, dtype=torch.float64))
            if uniform * self.lenience * float(q[token]) < float(p[token]):
                return child, p
            residual = (p - q).clamp_min(0)
            # Rounding can leave no mass where p and q agree; then p itself is what is left.
            p = residual / residual.sum() if residual.sum() > 0 else p
            if draft_q is not None:
                draft_q = draft_q.index_fill(0, torch.tensor(token), 0.0)
                draft_q = draft_q / draft_q.sum() if draft_q.sum() > 0 else draft_q
        return None, p

    @override
    def draw(self, logits: Tensor, past: Sequence[int], count: int = 1) -> Draw:
        """Return one guess, whatever the count, and the q that it was drawn from; none where the
        logits are no numbers.
        """
        logits = self.sampling.penalise(logits, past)
        q = self.sampling.log_probabilities(logits).exp().cpu()
        if q[0].isnan():  # then all of them are
            return Draw([], [])
        token = int(torch.multinomial(q, 1, generator=self.generator))
        return Draw([token], [float(q[token])], q)


@dataclass
class Typical(SampleAndMatch):
    """Typical acceptance (Medusa, Cai et al. 2024, arXiv 2401.10774): accept a token x with
    p(x) > min(epsilon, delta exp(-H(p))). Faster, and NOT the target's distribution.

    Args:
        epsilon: a token more likely than this is always accepted.
        delta: scales the entropy-dependent threshold; about sqrt(epsilon).
    """

    epsilon: float = 0.09
    delta: float = 0.3
    name: ClassVar[str] = "typical"
    follows_drafts: ClassVar[bool] = True

    @property
    @override
    def lossless(self) -> bool:
        return False

    @override
    def noise_at(self, position: int) -> Noise | None:
        return None  # what is likely is typical, whatever the noise would draw

    @property
    @override
    def draws_likeliest(self) -> bool:
        return False  # a text of likely tokens alone would be that of temperature 0

    @override
    def judge(self, tree: TokenTree, logits: Tensor, past: Sequence[int]) -> Judgement:
        """Return the typical nodes; their scores are log p, which orders equally long paths."""
        logits = _penalised(self.sampling, tree, logits, past)
        log_p = self.sampling.log_probabilities(logits)
        entropy = -(log_p.exp() * log_p.clamp_min(-1e4)).sum(-1)
        threshold = (self.delta * (-entropy).exp()).clamp_max(self.epsilon).log()
        parents = list(tree.parents[1:])
        of_nodes = log_p[parents, list(tree.tokens[1:])]
        accepted = [True, *(of_nodes > threshold[parents]).tolist()]
        scores = [0.0, *of_nodes.tolist()]
        return Judgement(accepted, self._samples(tree, logits, past), scores)


def make_rule(
    accept: str = "exact",
    sampling: Sampling | None = None,
    *,
    reply: int = 0,
    lenience: float = 1.0,
    epsilon: float = 0.09,
    delta: float = 0.3,
) -> Rule:
    """Return the acceptance rule of one reply.

    At temperature 0 all rules are the greedy one: p and q have all their mass on one token.

    Args:
        accept: "exact", "rejection" or "typical".
        sampling: how tokens are chosen; greedy by default.
        reply: which reply of the conversation this is; with the seed it fixes the noise.
        lenience: l of `Rejection`, in (0, 1].
        epsilon: of `Typical`: a token more likely than this is always accepted.
        delta: of `Typical`: scales the threshold that depends on the entropy.

    Raises:
        UsageError: for an unknown name, or a number out of its range.
    """
    _check_options(accept, lenience, epsilon, delta)
    sampling = sampling or Sampling()
    if sampling.greedy:
        return Greedy(sampling)
    noise = GumbelNoise(sampling.seed, reply)
    if accept == Rejection.name:
        return Rejection(sampling, generator_of(sampling.seed, reply), lenience)
    if accept == Typical.name:
        return Typical(sampling, noise, epsilon, delta)
    return SampleAndMatch(sampling, noise)


def _check_options(accept: str, lenience: float, epsilon: float, delta: float) -> None:
    if accept not in RULES:
        raise UsageError(f"unknown acceptance rule {accept!r}", f"choose from {', '.join(RULES)}")
    if not 0 < lenience <= 1:
        raise UsageError(f"the lenience must be above 0 and at most 1, not {lenience}")
    if lenience != 1 and accept != Rejection.name:
        raise UsageError("a lenience below 1 needs the rule `rejection`", "add --accept rejection")
    if not (0 < epsilon <= 1 and delta > 0):
        raise UsageError(
            f"epsilon must be above 0 and at most 1, delta above 0: {epsilon}, {delta}"
        )


RULES = ("exact", "rejection", "typical")
"""The names of the acceptance rules."""
