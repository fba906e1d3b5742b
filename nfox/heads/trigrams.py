"""What a draft is asked for with: the last tokens, encoded (trigrams, Zeng et al. 2024, arXiv
2402.15758).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from nfox.decoding.target import Target


class TrigramEncoder(nn.Module):
    """M (u + SiLU(A u + b)), where u are the embeddings of the last tokens side by side.

    A is full or a product of two thin matrices, and 0 at first, like b. u is scaled to 1:
    embeddings of some models are a hundred times smaller than their hidden states.

    Args:
        size: of an embedding.
        count: of tokens.
        rank: of A; it is full from count * size on.
    """

    def __init__(self, size: int, count: int, rank: int) -> None:
        super().__init__()
        self.count = count
        whole = count * size
        inner = nn.Linear(min(rank, whole), whole)
        nn.init.zeros_(inner.weight)
        nn.init.zeros_(inner.bias)
        down = nn.Linear(whole, rank, bias=False)
        self.inner = nn.Sequential(down, inner) if rank < whole else inner
        self.out = nn.Linear(whole, size, bias=False)

    @override
    def forward(self, window: Tensor, target: Target) -> Tensor:
        """Return [..., D] for windows [..., 3] of tokens; the base's embeddings stay frozen."""
        with torch.no_grad():
            vectors = target.embed(window[..., -self.count :].to(target.device)).flatten(-2)
            scaled = functional.rms_norm(vectors, vectors.shape[-1:]).to(self.out.weight)
        made: Tensor = self.out(scaled + functional.silu(self.inner(scaled)))
        return made


def windows(ids: Tensor) -> Tensor:
    """Return [B, T, 3] the tokens before, at and after each place of [B, T]; edges are repeated."""
    length = ids.shape[1]
    places = torch.arange(-1, length + 1, device=ids.device).clamp(0, length - 1)
    return ids[:, places].unfold(1, 3, 1)
