"""What heads that look back remember of one conversation while drafting: keys and values of the
target's hidden states, so that no state is projected twice.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from nfox.decoding.cache import KVCache, common_prefix
from nfox.decoding.target import CHUNK
from nfox.heads.attention import DecoderLayer


class StateCache:
    """The keys and values of a target's hidden states in every layer of the heads, for one
    conversation; those of a token lie at its position.

    The rows of drafts lie behind them and are written over in the next step. Only the list of
    tokens says what counts, so that an interrupt anywhere leaves nothing half done.

    Attributes:
        tokens: the tokens whose states are kept.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._encoder_ids: tuple[int, ...] | None = None
        self._matched = 0  # so many of the tokens are known to be the target's
        self._keys_values: dict[int, Tensor] = {}  # [2, 1, heads, capacity, head_dim] by layer

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens. Other methods may have changed these, so that
        `catch_up` compares all of them with the target's.
        """
        del self.tokens[length:]
        self._matched = 0

    def catch_up(self, layers: Iterable[DecoderLayer], cache: KVCache) -> Tensor:
        """Forget the tokens that the target has not read, and read the states of those that are
        missing, but for the last ones.

        Args:
            layers: one after the other.
            cache: what the target has read, one token at least.

        Returns:
            [R, D] the target's hidden states after those of `tokens`, R >= 1. The caller hands them
            to its first `attend`, which spares a pass over the layers, and then adds their tokens
            to `tokens`.
        """
        start, end = self._forget_changed(cache), len(cache.tokens)
        while end - start > CHUNK:  # the drafter joins a conversation late
            chunk = slice(start, start + CHUNK)
            for number, layer in enumerate(layers):
                rotary = layer.rotary(chunk.stop)[:, chunk]
                _, *keys_values = layer.project_qkv(cache.hidden[None, chunk], rotary)
                self._write(number, start, *keys_values)
            self.tokens += cache.tokens[chunk]
            start = chunk.stop
        return cache.hidden[start:]

    def _forget_changed(self, cache: KVCache) -> int:
        """Forget the tokens that the target has not read; return how many are left. The last token
        that it has read is never left, so that there is always a state to read.
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
        self, layers: Iterable[DecoderLayer], states: Tensor, queries: Tensor, start: int
    ) -> Tensor:
        """Run the layers over new states and queries, which see all of the past and each other.

        Args:
            layers: the same as for `catch_up`.
            states: [R, D] at position `start` and after it; only their keys and values are needed.
            queries: [A, D] at the positions after those.
            start: a position.

        Returns:
            [A, D] what leaves the last layer for the queries.
        """
        end = start + len(states) + len(queries)
        for number, layer in enumerate(layers):
            rotary = layer.rotary(end)[:, start:end]
            entering = torch.cat([states, queries])[None]
            attending, *keys_values = layer.project_qkv(entering, rotary)
            keys, values = self._write(number, start, *keys_values)
            attending = attending[:, :, len(states) :].to(keys.dtype)
            attended = functional.scaled_dot_product_attention(attending, keys, values)
            queries = layer.after_attention(queries[None], attended.to(queries.dtype))[0]
        return queries

    def _write(self, number: int, start: int, keys: Tensor, values: Tensor) -> Tensor:
        """Write keys and values [1, heads, R, head_dim] of a layer at a position.

        On a CPU they are kept in float32 or wider: one query over 16 bit rows takes eight times as
        long there.

        Returns:
            [2, 1, heads, start + R, head_dim] the keys and values up to the end of them.
        """
        buffer, end = self._keys_values.get(number), start + keys.shape[2]
        capacity = 0 if buffer is None else buffer.shape[3]
        if buffer is None or capacity < end:
            wide = torch.promote_types(keys.dtype, torch.float32)
            shape = (2, *keys.shape[:2], max(end, 2 * capacity, 256), keys.shape[3])
            larger = keys.new_empty(shape, dtype=wide if keys.device.type == "cpu" else keys.dtype)
            if buffer is not None:
                larger[:, :, :, :start] = buffer[:, :, :, :start]
            buffer = self._keys_values[number] = larger
        buffer[0, :, :, start:end] = keys
        buffer[1, :, :, start:end] = values
        return buffer[:, :, :, :end]
