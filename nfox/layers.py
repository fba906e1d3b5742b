"""A layer that heads are made of: attention to a target's hidden states, and an MLP."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def rotated(vectors: Tensor, positions: Tensor) -> Tensor:
    """Turn [..., D] by their positions [...] (RoPE, Su et al. 2021, arXiv 2104.09864)."""
    half = vectors.shape[-1] // 2
    steps = torch.arange(half, device=vectors.device, dtype=torch.float32)
    angles = positions[..., None] * 10_000.0 ** (-steps / half)
    cos, sin = angles.cos().to(vectors.dtype), angles.sin().to(vectors.dtype)
    first, second = vectors.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class SlotLayer(nn.Module):
    """A decoder layer of slots: they see a target's past and each other, without an order.

    Args:
        size: of the states.
        head_size: of attention, even; there are as many heads as fit into the size, at least one.
        wide: size inside of the MLP.
    """

    def __init__(self, size: int, head_size: int, wide: int) -> None:
        super().__init__()
        self.head_size = head_size
        inner = max(size // head_size, 1) * head_size
        self.query = nn.Linear(size, inner, bias=False)
        self.memory = nn.Linear(size, 2 * inner, bias=False)
        self.output = nn.Linear(inner, size, bias=False)
        self.gate = nn.Linear(size, 2 * wide, bias=False)
        self.down = nn.Linear(wide, size, bias=False)
        self.attention_norm = nn.RMSNorm(size, eps=1e-6)
        self.mlp_norm = nn.RMSNorm(size, eps=1e-6)

    def remember(self, states: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values [B, heads, ..., size] of states [B, ..., D]."""
        keys, values = self._split(self.memory(states)).chunk(2, dim=1)
        return rotated(keys, positions), values

    def _split(self, vectors: Tensor) -> Tensor:
        """[B, ..., N * size] to [B, N, ..., size]."""
        *outer, inner = vectors.shape
        return vectors.view(*outer, inner // self.head_size, self.head_size).movedim(-2, 1)

    def forward(
        self, slots: Tensor, positions: Tensor, past: tuple[Tensor, Tensor], seen: Tensor
    ) -> Tensor:
        """Return the slots [B, P, S, D] of P places, each a layer further.

        Args:
            slots: [B, P, S, D].
            positions: [B, 1, P, S] of the slots.
            past: keys and values [B, heads, T, size].
            seen: [B, 1, P, 1, T] what of the past a place sees.
        """
        inner = self.attention_norm(slots)
        query = rotated(self._split(self.query(inner)), positions)
        keys, values = self.remember(inner, positions)
        far = torch.einsum("bhpsd,bhtd->bhpst", query, past[0])
        near = torch.einsum("bhpsd,bhprd->bhpsr", query, keys)
        scores = torch.cat([far.masked_fill(~seen, -torch.inf), near], dim=-1)
        weights = (scores * self.head_size**-0.5).softmax(-1)
        far, near = weights.split([far.shape[-1], near.shape[-1]], dim=-1)
        found = torch.einsum("bhpst,bhtd->bhpsd", far, past[1])
        found = found + torch.einsum("bhpsr,bhprd->bhpsd", near, values)
        slots = slots + self.output(found.movedim(1, -2).flatten(-2))
        gate, wide = self.gate(self.mlp_norm(slots)).chunk(2, dim=-1)
        mixed: Tensor = slots + self.down(functional.silu(gate) * wide)
        return mixed
