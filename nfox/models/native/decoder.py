"""A forward over a token tree by the native library, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import addressof, byref, c_float, c_int32, c_void_p
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nfox.decoding.cache import KVCache
from nfox.decoding.tree import TokenTree
from nfox.decoding.verify import Draw
from nfox.models.decoder_weights import has_room_for_copy
from nfox.models.fused_positions import Rotations
from nfox.models.fused_weights import WeightLayout
from nfox.models.native import structures
from nfox.models.native.library import NativeLibraryError, native_library, thread_count
from nfox.models.native.weights import NativeWeights
from nfox.models.transformers_cache import TransformersCache, as_transformers_cache
from nfox.models.unsupported import UnsupportedError


class NativeDecoder:
    """The decoder of a model of transformers, of the kinds that `FusedDecoder` knows, on a CPU in
    bfloat16.

    Whatever stands beside a token in a forward, a plain step, a tree or a prompt, its logits are
    the same to the last bit.

    Args:
        model: the model, whose embeddings and cache are used, and of whose other weights there is a
            copy.
        config: the config of its decoder.

    Attributes:
        description: what runs the forward, in a few words.
        unembedding: the product for the logits, of states in the model's dtype.
        copied_bytes: the size of the copies of weights.

    Raises:
        AttributeError: if the model has another shape.
        NativeLibraryError: if there is no native library, or no memory for the copy.
        UnsupportedError: if its layers are not plain ones, if it is no CPU's, or in another dtype.
    """

    def __init__(self, model: Any, config: Any) -> None:
        if model.device.type != "cpu" or model.dtype != torch.bfloat16:
            raise UnsupportedError("the native library computes in bfloat16 on a CPU")
        if not has_room_for_copy(model):
            raise NativeLibraryError("no memory for a second copy of the weights")
        self._library = native_library()
        weights = WeightLayout(model.dtype, takes_native=True).decoder(model, config)
        native = self._native = NativeWeights(weights)
        self.weights, self.kinds, self.unembedding = weights, native.kinds, native.unembedding
        self.copied_bytes = native.copied_bytes
        self.description = " ".join(["native", *sorted(native.formats - {"bfloat16"})])
        self.rotations = Rotations(weights.rotary, torch.zeros(1), torch.float32)
        self._rows = WeakKeyDictionary[KVCache, structures.CacheAddresses]()
        self._like = torch.empty(
            1, weights.num_key_heads, 0, weights.head_dim, dtype=weights.model_dtype
        )

    def hidden_states(self, tree: TokenTree, cache: KVCache) -> Tensor:
        """Return the last hidden states [N, D] after every node of a tree, and write the keys and
        values of the nodes behind the committed rows of the cache.

        Args:
            tree: N nodes.
            cache: what has been read before, of the target of this model.
        """
        return self._run([(tree, cache)], None)

    def score(self, tree: TokenTree, cache: KVCache) -> tuple[Tensor, Tensor]:
        """Return the products for the logits, [N, V] float32, and what `hidden_states` does."""
        return self.score_batch([(tree, cache)])

    def score_batch(self, batch: Sequence[tuple[TokenTree, KVCache]]) -> tuple[Tensor, Tensor]:
        """Return the products for the logits [nodes of all trees, V], float32, and the last hidden
        states [nodes of all trees, D], of several conversations in one forward.

        Args:
            batch: trees, each with the cache of its own conversation, as for `hidden_states`.
        """
        logits = torch.empty(sum(len(tree) for tree, _ in batch), self.unembedding.outputs)
        return logits, self._run(batch, logits)

    @torch.inference_mode()
    def draft(
        self,
        chain: TokenTree,
        cache: KVCache,
        *,
        length: int,
        width: int,
        vocabulary_size: int,
        least_chance: float = 0.0,
        noise: NDArray[np.float32] | None = None,
    ) -> list[Draw]:
        """Read a chain and then the likeliest token again and again, in one call, and commit what
        was read; return the likeliest tokens after each forward.

        Args:
            chain: tokens that the cache lacks.
            cache: what has been read before, of the target of this model.
            length: the most forwards.
            width: how many tokens of each forward; `vocabulary_size` at most.
            vocabulary_size: so many first tokens are looked at.
            least_chance: it ends where the likeliest tokens so far are all right with less.
            noise: [length, vocabulary_size], what is added to the logits of each forward.
        """
        most = len(chain) + length - 1  # tokens that are read
        hidden = torch.empty(most, self._native.decoder.hidden_size, dtype=self.weights.model_dtype)
        sequence, tables = structures.Sequence(), self._tables(len(cache.tokens) + most)
        kept = self._fill(sequence, chain, cache, tables, most)
        tokens = torch.empty(length, width, dtype=torch.int32)
        probabilities = torch.empty(length, width)
        found = (c_void_p(part.data_ptr()) for part in (tokens, probabilities, hidden))
        sizes = (length, width, vocabulary_size, c_float(least_chance))
        added = None if noise is None else c_void_p(noise.ctypes.data)
        decoder, threads = byref(self._native.decoder), thread_count()
        count = self._library.nfox_draft(decoder, byref(sequence), *sizes, added, *found, threads)
        del kept  # until here the library reads it through raw pointers
        draws = list(map(_possible, tokens[:count].tolist(), probabilities[:count].tolist()))
        if count:
            read = [*chain.tokens, *(draw.tokens[0] for draw in draws[:-1])]
            cache.extend(read, hidden[: len(read)])
        return draws

    @torch.inference_mode()
    def _run(self, batch: Sequence[tuple[TokenTree, KVCache]], logits: Tensor | None) -> Tensor:
        """Return the last hidden states; write the products for the logits, where asked for."""
        total = sum(len(tree) for tree, _ in batch)
        hidden = torch.empty(
            total, self._native.decoder.hidden_size, dtype=self.weights.model_dtype
        )
        length = max(len(cache.tokens) + max(tree.depths) + 1 for tree, cache in batch)
        tables = self._tables(length)
        sequences = (structures.Sequence * len(batch))()
        kept = [
            self._fill(sequence, tree, cache, tables)
            for sequence, (tree, cache) in zip(sequences, batch, strict=True)
        ]
        native = structures.Batch(
            sequences=sequences,
            num_sequences=len(batch),
            hidden=hidden.data_ptr(),
            logits=None if logits is None else logits.data_ptr(),
        )
        self._library.nfox_forward(byref(self._native.decoder), byref(native), thread_count())
        del kept  # until here the library reads it through raw pointers
        return hidden

    def _tables(self, length: int) -> list[tuple[Tensor, Tensor]]:
        """Return the rotations of so many positions, of each kind of layers."""
        return [self.rotations.table(kind, length) for kind in self.kinds]

    def _fill(
        self,
        sequence: structures.Sequence,
        tree: TokenTree,
        cache: KVCache,
        tables: list[tuple[Tensor, Tensor]],
        num_rows: int | None = None,
    ) -> object:
        """Write into a sequence what a forward over a tree is about; return what it points to.

        Args:
            sequence: what is written to.
            tree: N nodes.
            cache: what has been read before.
            tables: the rotations of all positions, of each kind of layers.
            num_rows: so many tokens will be read behind the past; N by default.
        """
        count, past_length = len(tree), len(cache.tokens)
        room = past_length + (num_rows or count)
        rows = self._rows_of(as_transformers_cache(cache), room)
        tokens, parents = (c_int32 * count)(*tree.tokens), (c_int32 * count)(*tree.parents)
        sequence.num_nodes, sequence.past_length = count, past_length
        sequence.tokens, sequence.parents = addressof(tokens), addressof(parents)
        sequence.keys, sequence.values = addressof(rows.keys), addressof(rows.values)
        sequence.capacity = rows.capacity
        for number, (kind, (cosines, sines)) in enumerate(zip(self.kinds, tables, strict=True)):
            sequence.cosines[number], sequence.sines[number] = cosines.data_ptr(), sines.data_ptr()
            sequence.rotary_widths[number] = cosines.shape[1]
            sequence.windows[number] = (self.weights.window or 0) * (kind != "full_attention")
        return tokens, parents, rows

    def _rows_of(self, cache: TransformersCache, length: int) -> structures.CacheAddresses:
        """Return where keys and values lie, with room for `length` rows in every layer."""
        rows = cache.reserve(len(self.weights.layers), self._like, length)
        known = self._rows.get(cache)
        if known is None or known.start != rows.data_ptr():
            pointers = c_void_p * len(rows)
            keys, values = (pointers(*(part.data_ptr() for part in rows[:, i])) for i in (0, 1))
            known = self._rows[cache] = structures.CacheAddresses(
                keys, values, rows.shape[-2], rows.data_ptr()
            )
        return known


def _possible(tokens: list[int], probabilities: list[float]) -> Draw:
    """Return the guesses that are possible, of falling probabilities."""
    possible = len(tokens) if probabilities[-1] > 0 else probabilities.index(0.0)
    return Draw(tokens[:possible], probabilities[:possible])
