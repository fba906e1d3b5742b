"""A decoder layer for drafting hop by hop, and its memory of the target's states.

Each place of a text has a column of its own: the states faked there, one hop after the other. A
hop sees the target's true states up to its place, and what stands before it in its column.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from nfox.cache import common_prefix


class Norm(nn.RMSNorm):
    """Computes in the dtype of its weight, which is wider than that of the rows in training."""

    def __init__(self, size: int) -> None:
        super().__init__(size, eps=1e-6)

    def forward(self, rows: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        return super().forward(rows.to(self.weight.dtype))


class ColumnLayer(nn.Module):
    """One decoder layer, in parts: what is attended to differs between training and drafting.

    Args:
        size: of the states.
        heads: of attention.
        head_dim: of each, even.
        wide: size inside of the MLP.
        theta: base of the rotary positions.
    """

    def __init__(self, size: int, heads: int, head_dim: int, wide: int, theta: float) -> None:
        super().__init__()
        self.heads = heads
        self.pairs = head_dim // 2
        self.theta = theta
        self.input_norm = Norm(size)
        self.qkv = nn.Linear(size, 3 * heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, size, bias=False)
        self.mlp_norm = Norm(size)
        self.gate_up = nn.Linear(size, 2 * wide, bias=False)
        self.down = nn.Linear(wide, size, bias=False)
        self.norm = Norm(size)

    def angles(self, positions: Tensor) -> Tensor:
        """Return [2, R, head_dim / 2], cosine and sine of the rotations at positions [R] (RoPE, Su
        et al. 2021, arXiv 2104.09864).
        """
        steps = torch.arange(self.pairs, device=positions.device, dtype=torch.float64) / self.pairs
        turns = positions[:, None] * self.theta**-steps
        return torch.stack([turns.cos(), turns.sin()]).to(self.qkv.weight.dtype)

    def project(self, rows: Tensor, angles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values [B, heads, R, head_dim] of states [B, R, D].

        Args:
            rows: what stands at the positions.
            angles: [2, R, head_dim / 2] of the positions.
        """
        made = self.qkv(self.input_norm(rows)).unflatten(-1, (3 * self.heads, -1)).transpose(1, 2)
        one, other = made[:, : 2 * self.heads].chunk(2, dim=-1)
        cosine, sine = angles.to(made.dtype)
        turned = torch.cat([one * cosine - other * sine, one * sine + other * cosine], dim=-1)
        return turned[:, : self.heads], turned[:, self.heads :], made[:, 2 * self.heads :]

    def finish(self, rows: Tensor, attended: Tensor) -> Tensor:
        """Return [B, R, D] new states.

        Args:
            rows: [B, R, D] what the queries were made of.
            attended: [B, heads, R, head_dim] what they found.
        """
        rows = rows + self.out(attended.transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.mlp_norm(rows)).chunk(2, dim=-1)
        made: Tensor = self.norm(rows + self.down(functional.silu(gate) * up))
        return made


def attend(query: Tensor, keys: Tensor, values: Tensor, own: Tensor, owned: Tensor) -> Tensor:
    """Let each place of a text see all true states up to it, and its own column.

    The column is a few more entries of each row of scores, so that memory grows with the text
    squared once, whichever the hop.

    Args:
        query: [B, heads, T, head_dim].
        keys: [B, heads, T, head_dim] of the true states.
        values: of the same.
        own: [B, heads, T, m, head_dim] keys of each place's own column.
        owned: values of the same.

    Returns:
        [B, heads, T, head_dim].
    """
    query, length = query * query.shape[-1] ** -0.5, keys.shape[2]
    future = torch.ones(length, length, dtype=torch.bool, device=keys.device).triu(1)
    # Autocast would copy the scores, the largest things here, to float32 and back.
    with torch.autocast(query.device.type, enabled=False):
        past = (query @ keys.mT).masked_fill_(future, -torch.inf)
        scores = torch.cat([past, (query[..., None, :] * own).sum(-1)], dim=-1)
        weights = scores.softmax(-1)
        return weights[..., :length] @ values + (weights[..., length:, None] * owned).sum(-2)


class Memory:
    """Keys and values of the target's states, the row of a token at its position.

    Rows of drafts stand behind them and are written over by the next step. Only the list of tokens
    says what counts, so that an interrupt anywhere leaves nothing half done.

    Attributes:
        tokens: whose states are remembered.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._source: tuple[int, ...] | None = None
        self._agreed = 0  # so many of the tokens are known to be the target's
        self._rows = torch.empty(2, 1, 1, 0, 1)  # keys and values [1, heads, capacity, head_dim]

    def doubt(self) -> None:
        """Learn that the past may have been changed by others: `agree` will look at all of it."""
        self._agreed = 0

    def agree(self, tokens: Sequence[int], source: tuple[int, ...] | None) -> int:
        """Forget what is not the past any more; return how many tokens are still remembered.

        Args:
            tokens: that the target has read.
            source: what its encoder has read.
        """
        if source != self._source:
            self.tokens = []
            self._source = source
        start = min(self._agreed, len(self.tokens))
        del self.tokens[common_prefix(self.tokens, tokens, start) :]
        self._agreed = len(tokens)
        return len(self.tokens)

    def write(self, keys: Tensor, values: Tensor, start: int) -> Tensor:
        """Write rows [1, heads, R, head_dim] at a position.

        They are kept in float32 or wider: on a CPU one query over 16 bit rows takes eight times
        as long.

        Returns:
            [2, 1, heads, start + R, head_dim] the keys and values up to the end of them.
        """
        end, have = start + keys.shape[2], self._rows.shape[3]
        if end > have:
            kind = torch.promote_types(keys.dtype, torch.float32)
            shape = (2, *keys.shape[:2], max(end, 2 * have, 256), keys.shape[3])
            grown = keys.new_empty(shape, dtype=kind)
            if start:
                grown[:, :, :, :start] = self._rows[:, :, :, :start]
            self._rows = grown
        self._rows[0, :, :, start:end] = keys
        self._rows[1, :, :, start:end] = values
        return self._rows[:, :, :, :end]
