"""The target's memory: the tokens it has read, their keys, values and last hidden states.

There is ONE length, the number of tokens. A forward writes beyond it and moves nothing; only
`commit` makes the past longer, in one act. So an error or an interrupt anywhere leaves the cache as
it was, and what is not committed needs no clean-up.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin

from nfox.decoding.tree import TokenTree

_BLOCK = 256  # rows are allocated in multiples of this


def common_prefix(a: Sequence[int], b: Sequence[int], start: int = 0) -> int:
    """Return how many first elements of `a` and `b` are equal; `start` of them are known to be."""
    end = min(len(a), len(b))
    while start < end and a[start] == b[start]:
        start += 1
    return start


def _room(buffer: Tensor | None, like: Tensor, length: int, dim: int) -> Tensor:
    """Return `buffer` with room for `length` rows along `dim`, grown by doubling if need be."""
    have = buffer.shape[dim] if buffer is not None else 0
    if buffer is not None and have >= length:
        return buffer
    shape = list(like.shape)
    shape[dim] = max(-(-length // _BLOCK) * _BLOCK, 2 * have)
    grown = like.new_zeros(shape)
    if buffer is not None:
        grown.narrow(dim, 0, have).copy_(buffer)
    return grown


class _Layer(CacheLayerMixin):
    """One layer's keys and values [1, H, capacity, D]; their owner says how many rows count."""

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
        """Write rows after the committed ones; return the committed and the new."""
        base = len(self.owner.tokens)
        end = base + key_states.shape[-2]
        self.keys = _room(self.keys, key_states, end, -2)
        self.values = _room(self.values, value_states, end, -2)
        self.keys[:, :, base:end] = key_states
        self.values[:, :, base:end] = value_states
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self) -> int:
        """Return the number of committed rows."""
        return len(self.owner.tokens)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many rows a query of this length sees at most, and where they start."""
        return len(self.owner.tokens) + query_length, 0

    def get_max_length(self) -> int:
        """Return -1: it grows."""
        return -1


class KVCache:
    """Tokens, keys and values, and last hidden states of one conversation.

    For encoder-decoder models also the `source` that the encoder reads and its states, `encoded`.
    Keys and values of sliding-window layers are kept in full; the window is in the mask.

    Args:
        config: of the model.
        rollback: False for recurrent states (Mamba and hybrids), which cannot forget their last
            tokens: they are kept by transformers' own cache, and `truncate` starts anew.
    """

    def __init__(self, config: PreTrainedConfig, *, rollback: bool = True) -> None:
        self.tokens: list[int] = []
        self.source: tuple[int, ...] | None = None
        self.encoded: Tensor | None = None
        self.rollback = rollback
        self._config = config
        self._hidden: Tensor | None = None
        self._dirty = False
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

    @property
    def hidden(self) -> Tensor:
        """[len(tokens), D] the last (post-norm) hidden states of the tokens."""
        if self._hidden is None:
            return torch.empty(0, 0)
        return self._hidden[: len(self.tokens)]

    def reuse(self, prompt: Sequence[int], source: tuple[int, ...] | None = None) -> int:
        """Keep what is common with `prompt` and forget the rest.

        Args:
            prompt: what is to be read next. Its last token is never kept: it will be the root.
            source: what the encoder has read, for encoder-decoder models.

        Returns:
            How many tokens of the prompt need not be read again.
        """
        if source != self.source:
            self.truncate(0)
            self.source, self.encoded = source, None
        self.truncate(common_prefix(self.tokens, prompt[:-1]))
        return len(self.tokens)

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens (all, where a state cannot be rolled back)."""
        if not self.rollback and (length < len(self.tokens) or self._dirty):
            length = 0
        del self.tokens[length:]  # first, so that an interrupt leaves no token without its state
        if length == 0 and (self.encoded is not None or not self.rollback):
            # The keys and values of the source, and a recurrent state, belong to the old past.
            self.past, self._dirty = self._new_past(), False

    def fork(self, length: int) -> KVCache:
        """Return another cache that has read the first `length` tokens too, from copies of their
        rows; an empty one where a state cannot be rolled back, or stands on what an encoder read.
        """
        twin = KVCache(self._config, rollback=self.rollback)
        if self.rollback and not isinstance(self.past, EncoderDecoderCache):
            for index, layer in enumerate(self.past.layers):
                rows = (states[:, :, :length] for states in (layer.keys, layer.values))
                twin.past.update(*rows, index)
            twin.extend(self.tokens[:length], self.hidden[:length])
        return twin

    @property
    def bytes(self) -> int:
        """What it takes of memory: all that is allocated, filled or not."""
        caches = [self.past]
        if isinstance(self.past, EncoderDecoderCache):
            caches = [self.past.self_attention_cache, self.past.cross_attention_cache]
        parts = [
            part for cache in caches for layer in cache.layers for part in vars(layer).values()
        ]
        tensors = [part for part in (*parts, self._hidden, self.encoded) if part is not None]
        return sum(t.nbytes for t in tensors if isinstance(t, Tensor))

    def begin(self) -> None:
        """Note that a forward starts; a recurrent state is lost if it never returns."""
        self._dirty = not self.rollback

    def extend(self, tokens: Sequence[int], hidden: Tensor) -> None:
        """Commit tokens just read, all of them, with their hidden states [len(tokens), D]."""
        self._keep_hidden(hidden)
        self.tokens += tokens
        self._dirty = False

    @torch.inference_mode()
    def commit(self, tree: TokenTree, path: Sequence[int], hidden: Tensor) -> None:
        """Keep the accepted nodes of the tree just scored, in order, and forget the others.

        Args:
            tree: the tree whose rows stand after the committed ones.
            path: accepted nodes, the root first.
            hidden: [N, D] the last hidden states of all its nodes.
        """
        if list(path) != list(range(len(path))):
            self._compact(path)
            hidden = hidden[list(path)]
        self.extend([tree.tokens[node] for node in path], hidden[: len(path)])

    def _compact(self, path: Sequence[int]) -> None:
        """Move the rows of `path` to the front. Reads all of them before it writes."""
        base = len(self.tokens)
        rows = torch.tensor([base + node for node in path])
        for layer in _self_attention(self.past).layers:
            for states in (layer.keys, layer.values):
                kept = states.index_select(2, rows.to(states.device))
                states[:, :, base : base + len(path)] = kept

    def _keep_hidden(self, hidden: Tensor) -> None:
        base, end = len(self.tokens), len(self.tokens) + len(hidden)
        with torch.inference_mode():
            self._hidden = _room(self._hidden, hidden, end, 0)
            self._hidden[base:end] = hidden


def _self_attention(past: Cache) -> Cache:
    return past.self_attention_cache if isinstance(past, EncoderDecoderCache) else past
