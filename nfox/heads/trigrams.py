"""What Chimera's context encoder queries with: the last three tokens, encoded (Zeng et al. 2024,
arXiv 2402.15758).
"""

from __future__ import annotations

from ctypes import Array, c_int32

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from nfox.decoding.target import Vocabulary
from nfox.models.native.program import Program
from nfox.models.packed_layers import add_silu, native_product


class TrigramEncoder(nn.Module):
    """M (u + SiLU(A u + b)), where u are the embeddings of the last tokens side by side.

    A is full or a product of two thin matrices, and 0 at first, like b. u is scaled to 1:
    embeddings of some models are a hundred times smaller than their hidden states.

    Args:
        hidden_size: D, the width of an embedding.
        token_count: how many of the last tokens are encoded, 3 at most.
        rank: of A; A is full from token_count * hidden_size on.
    """

    def __init__(self, hidden_size: int, token_count: int, rank: int) -> None:
        super().__init__()
        self.token_count = token_count
        width = token_count * hidden_size
        inner = nn.Linear(min(rank, width), width)
        nn.init.zeros_(inner.weight)
        nn.init.zeros_(inner.bias)
        down = nn.Linear(width, rank, bias=False)
        self.inner = nn.Sequential(down, inner) if rank < width else inner
        self.out = nn.Linear(width, hidden_size, bias=False)

    @override
    def forward(self, trigrams: Tensor, target: Vocabulary) -> Tensor:
        """Return the encodings [..., D] of trigrams.

        Args:
            trigrams: [..., 3] token ids.
            target: the model whose embeddings are used, without a gradient.
        """
        with torch.no_grad():
            last_tokens = trigrams[..., -self.token_count :].to(target.device)
            embedded = target.embed(last_tokens).flatten(-2)
            scaled = functional.rms_norm(embedded, embedded.shape[-1:]).to(self.out.weight)
        *down, last = self.inner if isinstance(self.inner, nn.Sequential) else [self.inner]
        thin = down[0](scaled) if down else scaled
        encoded: Tensor = self.out(add_silu(scaled, last, thin))
        return encoded

    def add_to(
        self, program: Program, embedding: Tensor, tokens: Array[c_int32], result: Tensor
    ) -> None:
        """Add to a program what `forward` computes.

        Args:
            program: of the native library.
            embedding: [V, D] the target's embeddings.
            tokens: of N * token_count, the last tokens.
            result: [N, D] where the encodings go.

        Raises:
            UnsupportedError: if the layers are not packed for the native library.
        """
        count, width = len(result), self.token_count * embedding.shape[1]
        embedded, scaled, inner = (embedding.new_empty(count, width) for _ in range(3))
        *down, last = self.inner if isinstance(self.inner, nn.Sequential) else [self.inner]
        program.embed(embedding, tokens, embedded)
        program.norm(torch.ones(width), torch.finfo(torch.float32).eps, embedded, scaled)
        thin = scaled
        if down:
            product = native_product(down[0])
            thin = embedding.new_empty(count, product.outputs)
            program.linear(product, scaled, thin)
        program.linear(native_product(last), thin, inner, residual=scaled, silu=True)
        program.linear(native_product(self.out), inner, result)


def trigrams_around(ids: Tensor) -> Tensor:
    """Return [B, T, 3] the tokens before, at and after each position of token ids [B, T]; at the
    edges of a text its first and last tokens are repeated.
    """
    length = ids.shape[1]
    positions = torch.arange(-1, length + 1, device=ids.device).clamp(0, length - 1)
    return ids[:, positions].unfold(1, 3, 1)
