"""The decoder layer of heads that look back at the target's hidden states.

Each position of a text has a draft of its own: states that stand for the tokens after it, which are
not yet known. A draft sees the target's true states up to its position, and itself, but no other
draft. Training computes the drafts of all positions side by side (`draft_attention`); a drafter
computes the one of the last position (`nfox.heads.state_cache`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override


class Norm(nn.RMSNorm):
    """An RMS norm that computes in the dtype of its weight, which in training is wider than that
    of the states.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size, eps=1e-6)

    @override
    def forward(self, states: Tensor) -> Tensor:
        """Return the normed states [..., D] of states [..., D]."""
        return super().forward(states.to(self.weight.dtype))


@lru_cache(maxsize=16)
def _rotary_table(
    length: int, pairs: int, theta: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return [2, length, pairs] the cosines and sines of the rotations of all positions."""
    with torch.inference_mode(False):  # made while drafting, it may be needed with gradients
        exponents = torch.arange(pairs, dtype=torch.float64) / pairs
        angles = torch.arange(length)[:, None] * theta**-exponents
        return torch.stack([angles.cos(), angles.sin()]).to(device, dtype)


class DecoderLayer(nn.Module):
    """One decoder layer in parts, since what is attended to differs between training and drafting.

    Args:
        hidden_size: D, the width of the states.
        num_heads: of the attention.
        head_dim: the width of each of them, even.
        intermediate_size: the inner width of the MLP.
        rope_theta: the base of the rotary positions.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        head_dim: int,
        intermediate_size: int,
        rope_theta: float = 10_000.0,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.pairs = head_dim // 2
        self.rope_theta = rope_theta
        self.input_norm = Norm(hidden_size)
        self.qkv = nn.Linear(hidden_size, 3 * num_heads * head_dim, bias=False)
        self.out = nn.Linear(num_heads * head_dim, hidden_size, bias=False)
        self.mlp_norm = Norm(hidden_size)
        self.gate_up = nn.Linear(hidden_size, 2 * intermediate_size, bias=False)
        self.down = nn.Linear(intermediate_size, hidden_size, bias=False)

    def rotary(self, length: int) -> Tensor:
        """Return [2, T, head_dim / 2], T >= length: the cosines and sines of the rotations of the
        first positions (RoPE, Su et al. 2021, arXiv 2104.09864). They are computed once.
        """
        weight, capacity = self.qkv.weight, 1 << max(length - 1, 1023).bit_length()
        return _rotary_table(capacity, self.pairs, self.rope_theta, weight.dtype, weight.device)

    def project_qkv(self, states: Tensor, rotary: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values [B, heads, R, head_dim] of states [B, R, D].

        Args:
            states: [B, R, D] at any positions.
            rotary: [2, R, head_dim / 2] or [2, B, 1, R, head_dim / 2] the cosines and sines of
                these positions.
        """
        projected = self.qkv(self.input_norm(states))
        projected = projected.unflatten(-1, (3 * self.num_heads, -1)).transpose(1, 2)
        first, second = projected[:, : 2 * self.num_heads].chunk(2, dim=-1)
        cosine, sine = rotary.to(projected.dtype)
        rotated = torch.cat(
            [first * cosine - second * sine, first * sine + second * cosine], dim=-1
        )
        values = projected[:, 2 * self.num_heads :]
        return rotated[:, : self.num_heads], rotated[:, self.num_heads :], values

    def after_attention(self, states: Tensor, attended: Tensor) -> Tensor:
        """Return the states [B, R, D] that leave the layer: both residual sums and the MLP.

        Args:
            states: [B, R, D] that entered the layer.
            attended: [B, heads, R, head_dim] the values that their queries gathered.
        """
        states = states + self.out(attended.transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.mlp_norm(states)).chunk(2, dim=-1)
        output: Tensor = states + self.down(functional.silu(gate) * up)
        return output


def draft_attention(
    queries: Tensor, positions: Tensor, past: Sequence[Tensor], drafts: Sequence[Tensor]
) -> Tensor:
    """Let the drafts of many positions attend to the true states up to their position, and each to
    itself.

    A draft is a few more entries of each row of scores, so that memory grows with the text squared
    once, however long the drafts are.

    Args:
        queries: [B, heads, P, S, head_dim] of S states in the draft of each of P positions.
        positions: [P * S] or [B, 1, P * S] the position whose draft each of these states is in.
        past: keys and values [B, heads, T, head_dim] of the true states.
        drafts: keys and values [B, heads, P, M, head_dim] of each position's draft, all of which
            its states may see.

    Returns:
        [B, heads, P * S, head_dim] the gathered values.
    """
    (keys, values), (draft_keys, draft_values) = past, drafts
    queries, sizes = queries * queries.shape[-1] ** -0.5, queries.shape[2:4]
    later = torch.arange(keys.shape[2], device=keys.device) > positions[..., None]
    # Autocast would copy the scores, the largest things here, to float32 and back.
    with torch.autocast(queries.device.type, enabled=False):
        past_scores = (queries.flatten(2, 3) @ keys.mT).masked_fill_(later, -torch.inf)
        draft_scores = (queries @ draft_keys.mT).flatten(2, 3)
        weights = torch.cat([past_scores, draft_scores], dim=-1).softmax(-1)
        lengths = [past_scores.shape[-1], draft_scores.shape[-1]]
        past_weights, draft_weights = torch.split(weights, lengths, dim=-1)
        from_drafts = torch.unflatten(draft_weights, 2, sizes) @ draft_values
        return past_weights @ values + from_drafts.flatten(2, 3)
