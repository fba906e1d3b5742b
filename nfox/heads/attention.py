"""The layer of heads that look back, and what they remember of a target's states.

Each place of a text has a column of its own: states that stand for tokens not yet known. They see
the target's true states up to their place, and what stands in their column, but no other column.
Training lays all columns side by side (`attend`), drafting fills the one that is at the end
(`Memory`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from nfox.decoding.cache import KVCache, common_prefix
from nfox.decoding.target import CHUNK


class Norm(nn.RMSNorm):
    """Computes in the dtype of its weight, which is wider than that of the rows in training."""

    def __init__(self, size: int) -> None:
        super().__init__(size, eps=1e-6)

    @override
    def forward(self, rows: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        return super().forward(rows.to(self.weight.dtype))


@lru_cache(maxsize=16)
def _turns(
    length: int, pairs: int, theta: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    with torch.inference_mode(False):  # made while drafting, it may be needed with gradients
        steps = torch.arange(pairs, dtype=torch.float64) / pairs
        angles = torch.arange(length)[:, None] * theta**-steps
        return torch.stack([angles.cos(), angles.sin()]).to(device, dtype)


class Layer(nn.Module):
    """One decoder layer, in parts: what is attended to differs between training and drafting.

    Args:
        size: of the states.
        heads: of attention.
        head_dim: of each, even.
        wide: size inside of the MLP.
        theta: base of the rotary positions.
    """

    def __init__(
        self, size: int, heads: int, head_dim: int, wide: int, theta: float = 10_000.0
    ) -> None:
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

    def turns(self, end: int) -> Tensor:
        """Return [2, T, head_dim / 2], T >= end: cosine and sine of the rotations at the first
        positions (RoPE, Su et al. 2021, arXiv 2104.09864). They are computed once.
        """
        weight, length = self.qkv.weight, 1 << max(end - 1, 1023).bit_length()
        return _turns(length, self.pairs, self.theta, weight.dtype, weight.device)

    def project(self, rows: Tensor, turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values [B, heads, R, head_dim] of states [B, R, D].

        Args:
            rows: what stands at the positions.
            turns: [2, R, head_dim / 2] or [2, B, 1, R, head_dim / 2] those of the positions.
        """
        made = self.qkv(self.input_norm(rows)).unflatten(-1, (3 * self.heads, -1)).transpose(1, 2)
        one, other = made[:, : 2 * self.heads].chunk(2, dim=-1)
        cosine, sine = turns.to(made.dtype)
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
        made: Tensor = rows + self.down(functional.silu(gate) * up)
        return made


def attend(query: Tensor, at: Tensor, past: Sequence[Tensor], own: Sequence[Tensor]) -> Tensor:
    """Let the columns of all places see the true states up to their place, and themselves.

    A column is a few more entries of each row of scores, so that memory grows with the text
    squared once, however long the columns are.

    Args:
        query: [B, heads, P, S, head_dim] of S states in each of P places.
        at: [P * S] or [B, 1, P * S] the position of the place that each of them is in.
        past: keys and values [B, heads, T, head_dim] of the true states.
        own: keys and values [B, heads, P, m, head_dim] of each place's column.

    Returns:
        [B, heads, P * S, head_dim].
    """
    (keys, values), (own_keys, own_values) = past, own
    query, places = query * query.shape[-1] ** -0.5, query.shape[2:4]
    later = torch.arange(keys.shape[2], device=keys.device) > at[..., None]
    # Autocast would copy the scores, the largest things here, to float32 and back.
    with torch.autocast(query.device.type, enabled=False):
        far = (query.flatten(2, 3) @ keys.mT).masked_fill_(later, -torch.inf)
        near = (query @ own_keys.mT).flatten(2, 3)
        weights = torch.cat([far, near], dim=-1).softmax(-1)
        far, near = torch.split(weights, [far.shape[-1], near.shape[-1]], dim=-1)
        found = torch.unflatten(near, 2, places) @ own_values
        return far @ values + found.flatten(2, 3)


class Memory:
    """Keys and values of the target's states in every layer, the row of a token at its position.

    Rows of drafts stand behind them and are written over by the next step. Only the list of tokens
    says what counts, so that an interrupt anywhere leaves nothing half done.

    Attributes:
        tokens: whose states are remembered.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._source: tuple[int, ...] | None = None
        self._agreed = 0  # so many of the tokens are known to be the target's
        self._rows: dict[int, Tensor] = {}  # [2, 1, heads, capacity, head_dim] by layer

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens; others may have changed these, so `catch_up`
        looks at all of them.
        """
        del self.tokens[length:]
        self._agreed = 0

    def catch_up(self, layers: Iterable[Layer], cache: KVCache) -> Tensor:
        """Forget what is not the past any more, and read what is missing but for a last piece.

        Args:
            layers: one after the other.
            cache: what the target has read, not nothing.

        Returns:
            [R, D] the states after those of `tokens`, of one token at least. The caller's first
            `ask` reads them, which spares a pass over the layers, and the caller counts them then.
        """
        start, end = self._agree(cache), len(cache.tokens)
        while end - start > CHUNK:  # it joins late
            part = slice(start, start + CHUNK)
            for number, layer in enumerate(layers):
                turns = layer.turns(part.stop)[:, part]
                _, *states = layer.project(cache.hidden[None, part], turns)
                self._write(number, start, *states)
            self.tokens += cache.tokens[part]
            start = part.stop
        return cache.hidden[start:]

    def _agree(self, cache: KVCache) -> int:
        """Forget what is not the past any more; return how many tokens are still remembered. The
        last token read is never kept, so that there is always something to read.
        """
        if cache.encoder_ids != self._source:
            self.tokens = []
            self._source = cache.encoder_ids
        start = min(self._agreed, len(self.tokens))
        same = common_prefix(self.tokens, cache.tokens, start)
        del self.tokens[min(same, len(cache.tokens) - 1) :]
        self._agreed = len(cache.tokens)
        return len(self.tokens)

    def ask(self, layers: Iterable[Layer], rows: Tensor, asking: Tensor, start: int) -> Tensor:
        """Return [A, D] what states become that see all of the past and each other.

        Args:
            layers: the same as for `catch_up`.
            rows: [R, D] what stands at `start`; of it keys and values are remembered.
            asking: [A, D] what stands after that.
            start: position.
        """
        end = start + len(rows) + len(asking)
        for number, layer in enumerate(layers):
            turns = layer.turns(end)[:, start:end]
            query, *states = layer.project(torch.cat([rows, asking])[None], turns)
            keys, values = self._write(number, start, *states)
            query = query[:, :, len(rows) :].to(keys.dtype)
            found = functional.scaled_dot_product_attention(query, keys, values)
            asking = layer.finish(asking[None], found.to(asking.dtype))[0]
        return asking

    def _write(self, number: int, start: int, keys: Tensor, values: Tensor) -> Tensor:
        """Write rows [1, heads, R, head_dim] of a layer at a position.

        On a CPU they are kept in float32 or wider: one query over 16 bit rows takes eight times as
        long there.

        Returns:
            [2, 1, heads, start + R, head_dim] keys and values up to the end of them.
        """
        held, end = self._rows.get(number), start + keys.shape[2]
        have = 0 if held is None else held.shape[3]
        if held is None or have < end:
            wide = torch.promote_types(keys.dtype, torch.float32)
            shape = (2, *keys.shape[:2], max(end, 2 * have, 256), keys.shape[3])
            grown = keys.new_empty(shape, dtype=wide if keys.device.type == "cpu" else keys.dtype)
            if held is not None:
                grown[:, :, :, :start] = held[:, :, :, :start]
            held = self._rows[number] = grown
        held[0, :, :, start:end] = keys
        held[1, :, :, start:end] = values
        return held[:, :, :, :end]
