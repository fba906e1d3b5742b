"""What heads that look back remember of one conversation while drafting: keys and values of the
target's hidden states, so that no state is projected twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional

from nfox.decoding.cache import KVCache, common_prefix, with_capacity
from nfox.decoding.target import CHUNK
from nfox.decoding.tree import ancestor_mask, node_depths
from nfox.heads.attention import DecoderLayer, Norm
from nfox.heads.native_layer import NativeLayer
from nfox.models.unsupported import UnsupportedError

MOST_STATES = 16
"""The most states that enter together with queries: as many as a step's tokens mostly make. Of the
others only keys and values are computed."""


class StateCache:
    """The keys and values of a target's hidden states in every layer of the heads, for one
    conversation; those of a token lie at its position.

    The rows of drafts lie behind them and are written over in the next step. Only the list of
    tokens says what counts, so that an interrupt anywhere leaves nothing half done.

    Args:
        layers: one after the other.
        norm: of what leaves the last one.

    Attributes:
        tokens: the tokens whose states are kept.
        layers: what each layer remembers.
    """

    def __init__(self, layers: Iterable[DecoderLayer], norm: Norm) -> None:
        self.tokens: list[int] = []
        self._encoder_ids: tuple[int, ...] | None = None
        self._matched = 0  # so many of the tokens are known to be the target's
        *first, last = layers
        self.layers = [*map(_layer_cache, first), _layer_cache(last, norm)]

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens. Other methods may have changed these, so that
        `catching_up` compares all of them with the target's.
        """
        del self.tokens[length:]
        self._matched = 0

    @contextmanager
    def catching_up(self, cache: KVCache) -> Iterator[Tensor]:
        """Forget the tokens that the target has not read, and read the states of those that are
        missing, but for the last ones: these are to be attended to in this context, with the first
        queries, which spares a pass over the layers.

        Args:
            cache: what the target has read, one token at least.

        Yields:
            [R, D] the target's hidden states after those of `tokens`, of which there are 1 to
            MOST_STATES; their tokens are added to `tokens` where the context ends without an error.
        """
        start, end = self.forget_changed(cache), len(cache.tokens)
        while end - start > MOST_STATES:  # the drafter joins a conversation late
            chunk = slice(start, min(start + CHUNK, end - 1))
            for layer in self.layers:
                layer.read(cache.hidden[chunk], start)
            self.tokens += cache.tokens[chunk]
            start = chunk.stop
        yield cache.hidden[start:]
        self.tokens += cache.tokens[start:]

    def forget_changed(self, cache: KVCache) -> int:
        """Forget the tokens that the target has not read; return how many are left. The last token
        that it has read is never left, so that there is always a state to read.

        Args:
            cache: what the target has read, one token at least.
        """
        if cache.encoder_ids != self._encoder_ids:
            self.tokens = []
            self._encoder_ids = cache.encoder_ids
        start = min(self._matched, len(self.tokens))
        common = common_prefix(self.tokens, cache.tokens, start)
        del self.tokens[min(common, len(cache.tokens) - 1) :]
        self._matched = len(cache.tokens)
        return len(self.tokens)

    def attend(
        self,
        states: Tensor,
        queries: Tensor,
        start: int,
        parents: Sequence[int] | None = None,
        *,
        is_joint: bool = False,
    ) -> Tensor:
        """Run the layers over new states and queries, which see all of the past.

        Args:
            states: [R, D]; only their keys and values are needed.
            queries: [A, D].
            start: the position of the first of them.
            parents: [R + A] of states and queries, the one before each; each sees itself and those
                from the first one to its parent. None makes them a chain.
            is_joint: whether the queries, in a chain, see each other.

        Returns:
            [A, D] what leaves the last layer for the queries, normed.
        """
        num_joint = len(queries) if is_joint else 0
        for layer in self.layers:
            rows = layer.attend(torch.cat([states, queries]), start, parents, num_joint)
            queries = rows[len(states) :]
        return queries


class LayerCache:
    """What one layer remembers: the keys and values of states, each at its position.

    Args:
        layer: what makes them.
        norm: of what leaves it; None for none.
    """

    def __init__(self, layer: DecoderLayer, norm: Norm | None = None) -> None:
        self._layer, self._norm = layer, norm
        self._keys_values: Tensor | None = None  # [2, 1, heads, capacity, head_dim]

    def read(self, states: Tensor, start: int) -> None:
        """Remember states [R, D] at positions from `start` on."""
        rotary = self._layer.rotary(start + len(states))[:, start : start + len(states)]
        self._write(start, *self._layer.project_qkv(states[None], rotary)[1:])

    def attend(
        self,
        rows: Tensor,
        start: int,
        parents: Sequence[int] | None = None,
        num_joint: int = 0,
    ) -> Tensor:
        """Return [N, D] what leaves the layer for rows that see all of the past and some of each
        other.

        Args:
            rows: [N, D].
            start: the position of the first of them; the others follow their parents.
            parents: [N] the row before each, -1 of the first; each sees itself and all rows on the
                way from the first one to it. None makes them a chain.
            num_joint: so many last rows of a chain see each other.
        """
        layer, count, device = self._layer, len(rows), rows.device
        depths = range(count) if parents is None else node_depths(tuple(parents))
        rotary = layer.rotary(start + count)[:, [start + depth for depth in depths]]
        attending, *new = layer.project_qkv(rows[None], rotary)
        keys, values = self._write(start, *new)
        seen = torch.ones(count, start + count, dtype=torch.bool, device=device).tril(start)
        if parents is not None:
            seen[:, start:] = ancestor_mask(tuple(parents)).to(device)
        seen[count - num_joint :, start + count - num_joint :] = True
        attended = functional.scaled_dot_product_attention(
            attending.to(keys.dtype), keys, values, seen
        )
        left = layer.after_attention(rows[None], attended.to(rows.dtype))[0]
        return self._norm(left) if self._norm else left

    def _write(self, start: int, keys: Tensor, values: Tensor) -> Tensor:
        """Write keys and values [1, heads, R, head_dim] at a position.

        On a CPU they are kept in float32 or wider: one query over 16 bit rows takes eight times as
        long there.

        Returns:
            [2, 1, heads, start + R, head_dim] the keys and values up to the end of them.
        """
        new, end = torch.stack([keys, values]), start + keys.shape[2]
        if keys.device.type == "cpu":
            new = new.to(torch.promote_types(new.dtype, torch.float32))
        self._keys_values = with_capacity(self._keys_values, new, end, 3)
        self._keys_values[:, :, :, start:end] = new
        return self._keys_values[:, :, :, :end]


def _layer_cache(layer: DecoderLayer, norm: Norm | None = None) -> LayerCache | NativeLayer:
    try:
        return NativeLayer(layer, norm)
    except UnsupportedError:
        return LayerCache(layer, norm)
