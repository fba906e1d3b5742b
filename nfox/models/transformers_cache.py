"""The KV cache of a model of transformers: one buffer of keys and values for each layer."""

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
    """The keys and values [1, H, capacity, D] of one layer.

    Args:
        owner: the cache of all layers, which knows how many rows are committed.
    """

    is_sliding = False
    keys: Tensor | None
    values: Tensor | None

    def __init__(self, owner: KVCache) -> None:
        super().__init__()
        self.owner = owner

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: the first update allocates the memory."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write keys and values [1, H, N, D] after the committed rows; return all of these rows."""
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
        """Return the most rows that a query of this length sees, and the first of them."""
        return len(self.owner.tokens) + query_length, 0

    def get_max_length(self) -> int:
        """Return -1: the cache grows."""
        return -1


class TransformersCache(KVCache):
    """The cache of a model of transformers.

    Keys and values of layers with a sliding window are kept in full; the window is in the mask.

    Args:
        config: the config of the model.
        can_roll_back: False for recurrent states, which transformers' own cache holds.

    Attributes:
        past: the object that the model takes as its cache.
        encoded: the token ids that the encoder has read, and its states [1, T, D]; None before the
            encoder has read any.
    """

    def __init__(self, config: PreTrainedConfig, *, can_roll_back: bool = True) -> None:
        super().__init__(can_roll_back=can_roll_back)
        self.encoded: tuple[tuple[int, ...], Tensor] | None = None
        self._config = config
        # Reserved rows are one tensor [layers, 2, 1, H, capacity, D]; beside it that of the last
        # layer's values, which grows by itself if any does.
        self._joint: tuple[Tensor, Tensor] | None = None
        self.past = self._new_past()

    def _new_past(self) -> Cache:
        if not self.can_roll_back:
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
        if self.encoded is not None or not self.can_roll_back:
            self.past = self._new_past()

    def reserve(self, num_layers: int, like: Tensor, length: int) -> Tensor:
        """Return the keys and values [layers, 2, 1, H, capacity, D] of all layers of a decoder,
        with room for `length` rows, for who writes them directly.

        Args:
            num_layers: of the decoder.
            like: a tensor [1, H, 0, D] of the dtype and device of keys and values.
            length: how many rows are needed.
        """
        layers = self.past.layers
        while len(layers) < num_layers:
            layers.append(self.past.layer_class_to_replicate())
        known = self._reserved()
        if known is not None and known.shape[-2] >= length:
            return known
        joint = with_capacity(known, like.expand(num_layers, 2, *like.shape), length, -2)
        for layer, (keys, values) in zip(layers, joint, strict=True):
            if known is None and layer.keys is not None:  # they lay each for itself
                keys[:, :, : len(self.tokens)] = layer.keys[:, :, : len(self.tokens)]
                values[:, :, : len(self.tokens)] = layer.values[:, :, : len(self.tokens)]
            layer.keys, layer.values = keys, values
        self._joint = joint, layers[-1].values
        return joint

    def _reserved(self) -> Tensor | None:
        """Return the keys and values of all layers; None where they are not one tensor."""
        if self._joint is None:
            return None
        joint, last_values = self._joint
        return joint if self.past.layers[-1].values is last_values else None

    @override
    def fork(self, length: int) -> TransformersCache:
        twin = TransformersCache(self._config, can_roll_back=self.can_roll_back)
        length = min(length, len(self.tokens))
        if not (length and self.can_roll_back) or isinstance(self.past, EncoderDecoderCache):
            return twin
        joint = self._reserved()
        if joint is not None:
            with torch.inference_mode():
                rows = joint.narrow(-2, 0, length)
                own = twin.reserve(len(joint), joint[0, 0, ..., :0, :], length)
                own.narrow(-2, 0, length).copy_(rows)
        else:
            for index, layer in enumerate(self.past.layers):
                apart = (states[:, :, :length] for states in (layer.keys, layer.values))
                twin.past.update(*apart, index)
        twin.extend(self.tokens[:length], self.hidden[:length])
        return twin

    @property
    @override
    def nbytes(self) -> int:
        caches = [self.past]
        if isinstance(self.past, EncoderDecoderCache):
            caches = [self.past.self_attention_cache, self.past.cross_attention_cache]
        states = [
            state for cache in caches for layer in cache.layers for state in vars(layer).values()
        ]
        encoded = self.encoded[1] if self.encoded else None
        tensors = [x for x in (*states, self._hidden, encoded) if isinstance(x, Tensor)]
        return sum(tensor.nbytes for tensor in tensors)

    @override
    def _keep_rows(self, path: Sequence[int]) -> None:
        start = len(self.tokens)
        rows = torch.tensor([start + node for node in path])
        joint, layers = self._reserved(), _self_attention(self.past).layers
        apart = (states for layer in layers for states in (layer.keys, layer.values))
        for states in apart if joint is None else (joint,):
            # All rows are read before any is written.
            accepted = states.index_select(-2, rows.to(states.device))
            states.narrow(-2, start, len(path)).copy_(accepted)


def past_of(cache: KVCache) -> Cache:
    """Return the object that a model of transformers takes as its cache.

    Raises:
        TypeError: if the cache belongs to another kind of target.
    """
    return as_transformers_cache(cache).past


def as_transformers_cache(cache: KVCache) -> TransformersCache:
    """Return a cache under its type, that of a model of transformers.

    Raises:
        TypeError: if the cache belongs to another kind of target.
    """
    if not isinstance(cache, TransformersCache):
        raise TypeError(f"expected the cache of a transformers model, got {type(cache).__name__}")
    return cache


def _self_attention(past: Cache) -> Cache:
    return past.self_attention_cache if isinstance(past, EncoderDecoderCache) else past
