"""Keys and values as transformers' models write and read them, in one buffer for each layer."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin
from typing_extensions import override

from nfox.decoding.cache import KVCache, with_capacity


class _Layer(CacheLayerMixin):
    """One layer's keys and values [1, H, capacity, D]; their owner knows how many rows count."""

    is_sliding = False
    keys: Tensor | None
    values: Tensor | None

    def __init__(self, owner: KVCache) -> None:
        super().__init__()
        self.owner = owner

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to prepare: memory comes with the first update."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write rows after the committed ones; return the committed and the new rows."""
        start = len(self.owner.tokens)
        end = start + key_states.shape[-2]
        self.keys = with_capacity(self.keys, key_states, end, -2)
        self.values = with_capacity(self.values, value_states, end, -2)
        self.keys[:, :, start:end] = key_states
        self.values[:, :, start:end] = value_states
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self) -> int:
        """Return the number of committed rows."""
        return len(self.owner.tokens)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many rows a query of this length sees at most, and where they start."""
        return len(self.owner.tokens) + query_length, 0

    def get_max_length(self) -> int:
        """Return -1: the cache grows."""
        return -1


class TransformersCache(KVCache):
    """The cache of a model of transformers.

    Keys and values of layers with a sliding window are kept in full; the window is in the mask.

    Args:
        config: of the model.
        rollback: False for recurrent states, which are kept by transformers' own cache.

    Attributes:
        past: what the model is handed as its cache.
        encoded: the token ids that the encoder has read, and its states [1, T, D]; None before it
            has read any.
    """

    def __init__(self, config: PreTrainedConfig, *, rollback: bool = True) -> None:
        super().__init__(rollback=rollback)
        self.encoded: tuple[tuple[int, ...], Tensor] | None = None
        self._config = config
        self.past = self._new_past()

    def _new_past(self) -> Cache:
        if not self.rollback:
            return DynamicCache(config=self._config)
        # The layers are made when a forward first touches them, so no model needs a layer count.
        # They know their owner weakly: a cycle would keep gigabytes until the collector comes by.
        owner = weakref.proxy(self)
        past = Cache(layer_class_to_replicate=lambda: _Layer(owner))
        if self._config.is_encoder_decoder:
            return EncoderDecoderCache(past, DynamicCache())
        return past

    @override
    def _clear(self) -> None:
        # Keys and values of what the encoder read, and a recurrent state, belong to the old past.
        if self.encoded is not None or not self.rollback:
            self.past = self._new_past()

    @override
    def fork(self, length: int) -> TransformersCache:
        twin = TransformersCache(self._config, rollback=self.rollback)
        if self.rollback and not isinstance(self.past, EncoderDecoderCache):
            for index, layer in enumerate(self.past.layers):
                rows = (states[:, :, :length] for states in (layer.keys, layer.values))
                twin.past.update(*rows, index)
            twin.extend(self.tokens[:length], self.hidden[:length])
        return twin

    @property
    @override
    def nbytes(self) -> int:
        caches = [self.past]
        if isinstance(self.past, EncoderDecoderCache):
            caches = [self.past.self_attention_cache, self.past.cross_attention_cache]
        parts = [
            part for cache in caches for layer in cache.layers for part in vars(layer).values()
        ]
        encoded = self.encoded[1] if self.encoded else None
        tensors = [part for part in (*parts, self._hidden, encoded) if isinstance(part, Tensor)]
        return sum(tensor.nbytes for tensor in tensors)

    @override
    def _keep_rows(self, path: Sequence[int]) -> None:
        start = len(self.tokens)
        rows = torch.tensor([start + node for node in path])
        for layer in _self_attention(self.past).layers:
            for states in (layer.keys, layer.values):
                # All rows are read before any is written.
                accepted = states.index_select(2, rows.to(states.device))
                states[:, :, start : start + len(path)] = accepted


def past_of(cache: KVCache) -> Cache:
    """Return what a model of transformers is handed as its cache.

    Raises:
        TypeError: if the cache belongs to another kind of target.
    """
    return of_transformers(cache).past


def of_transformers(cache: KVCache) -> TransformersCache:
    """Return the cache itself, known to be one of transformers' models.

    Raises:
        TypeError: if it belongs to another kind of target.
    """
    if not isinstance(cache, TransformersCache):
        raise TypeError(f"expected the cache of a transformers model, got {type(cache).__name__}")
    return cache


def _self_attention(past: Cache) -> Cache:
    return past.self_attention_cache if isinstance(past, EncoderDecoderCache) else past
