"""The loss of distillation: how far a draft model's distributions are from its target's.

A draft model is as good as the share of its tokens that the target accepts, which is
alpha = sum_x min(p(x), q(x)) on average (Leviathan et al. 2023, arXiv 2211.17192, theorem 3.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from nfox.errors import UsageError

Divergence = Literal["forward", "reverse", "tv"]
"""KL(target || draft), KL(draft || target), or the total variation, which is 1 - alpha."""


@dataclass(frozen=True)
class Distillation:
    """The settings of a draft model's loss.

    Args:
        divergence: the divergence between the distributions of target and draft model.
        top1_weight: the weight of the cross-entropy with the target's likeliest token, which is
            added to the divergence.
        cached_top_k: the number of the target's likeliest tokens whose probabilities are cached
            for each position, with that of all others as one, so that later epochs do not compute
            the target; 0 computes the whole distribution anew every time.

    Raises:
        UsageError: if the divergence is unknown or a number is below 0.
    """

    divergence: Divergence = "forward"
    top1_weight: float = 0.0
    cached_top_k: int = 0

    def __post_init__(self) -> None:
        if self.divergence not in get_args(Divergence):
            names = ", ".join(get_args(Divergence))
            raise UsageError(f"no divergence {self.divergence}", f"expected {names}")
        if self.top1_weight < 0 or self.cached_top_k < 0:
            raise UsageError("the weight of the first choice and the kept ones are 0 or above")


class TargetDistribution(NamedTuple):
    """The target's distributions at n positions, whole or over its likeliest tokens.

    Args:
        tokens: [n, K] token ids of the likeliest tokens, in descending order; [n, 0] where the
            distributions are over the whole vocabulary.
        log_probs: [n, K + 1] log-probabilities of these tokens, and of all others together; or
            [n, V].
    """

    tokens: Tensor
    log_probs: Tensor


def divergence(p: Tensor, q: Tensor, kind: Divergence) -> Tensor:
    """Return [n] the divergence between pairs of distributions, in nats but for "tv".

    Args:
        p: [n, outcomes] log-probabilities of the target.
        q: [n, outcomes] log-probabilities of the draft model.
        kind: which divergence.
    """
    if kind == "tv":
        return (p.exp() - q.exp()).abs().sum(-1) / 2
    first, second = (p, q) if kind == "forward" else (q, p)
    return (first.exp() * (first - second)).sum(-1)


def coarse_log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return [n, K + 1] log-probabilities of K tokens and of all others together; [n, V] of all
    tokens if K is 0.

    Args:
        logits: [n, V] logits.
        tokens: [n, K] token ids.
    """
    if not tokens.shape[-1]:
        return logits.log_softmax(-1)
    total = logits.logsumexp(-1, keepdim=True)
    others = logits.scatter(-1, tokens, -torch.inf).logsumexp(-1, keepdim=True)
    lowest = torch.finfo(torch.float16).min  # what log 0 becomes in the cache, which is float16
    return torch.cat([logits.gather(-1, tokens) - total, (others - total).clamp_min(lowest)], -1)
