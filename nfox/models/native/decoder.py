"""A forward over a token tree by the native library, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import addressof, byref, c_int32, c_void_p
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation, GELUTanh, SiLUActivation

from nfox.decoding.cache import KVCache
from nfox.decoding.tree import TokenTree
from nfox.models.decoder_weights import DecoderWeights, has_room_for_copy
from nfox.models.fused_positions import Rotations
from nfox.models.fused_products import Norm, Product
from nfox.models.fused_weights import WeightLayout
from nfox.models.native import structures
from nfox.models.native.library import NativeLibraryError, native_library
from nfox.models.native.product import NativeProduct, as_native, halves
from nfox.models.transformers_cache import TransformersCache, as_transformers_cache

_ACTIVATIONS = {nn.SiLU: 0, SiLUActivation: 0, GELUTanh: 1, GELUActivation: 2, nn.ReLU: 3}
"""The number of an activation in the library, by its class."""

_MOST_HEAD_DIM = 1024


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
        TypeError: if its layers are not plain ones, if it is no CPU's, or in another dtype.
    """

    def __init__(self, model: Any, config: Any) -> None:
        if model.device.type != "cpu" or model.dtype != torch.bfloat16:
            raise TypeError("the native library computes in bfloat16 on a CPU")
        if not has_room_for_copy(model):
            raise NativeLibraryError("no memory for a second copy of the weights")
        self._library = native_library()
        weights = WeightLayout(model.dtype, takes_native=True).decoder(model, config)
        _check_sizes(weights, config)
        self.weights = weights
        self.kinds = tuple(dict.fromkeys(weights.kinds))
        self.copied_bytes = 0
        self._products: list[NativeProduct] = []  # whose memory the library reads
        self.unembedding = self._native(weights.unembedding)
        self.rotations = Rotations(weights.rotary, torch.zeros(1), torch.float32)
        self._norm_weights: list[Tensor] = []  # likewise
        count = len(weights.layers)
        layers = (structures.Layer * count)(*map(self._layer, range(count)))
        embedding: Tensor = weights.embed.weight  # type: ignore[assignment]
        self._decoder = structures.Decoder(
            layers=layers,
            num_layers=count,
            hidden_size=embedding.shape[1],
            num_heads=weights.num_heads,
            num_key_heads=weights.num_key_heads,
            head_dim=weights.head_dim,
            activation=_ACTIVATIONS[type(weights.layers[0].activation)],
            embedding=embedding.data_ptr(),
            embedding_scale=weights.embedding_scale * _scale_of(weights.embed),
            norm=self._norm(weights.norm),
            unembedding=self.unembedding.matrix,
        )
        self._rows = WeakKeyDictionary[KVCache, structures.Rows]()
        of_layers = [one for one in self._products if one is not self.unembedding]
        formats = {product.packed.format for product in of_layers}
        self.description = " ".join(["native", *sorted(formats - {"bfloat16"})])
        self._like = torch.empty(
            1, weights.num_key_heads, 0, weights.head_dim, dtype=weights.model_dtype
        )

    def _layer(self, index: int) -> structures.Layer:
        layer = self.weights.layers[index]
        gate, up = halves(layer.gate_up)
        return structures.Layer(
            attention=self._norm(layer.attention_norm),
            attended=self._norm(layer.attended_norm),
            mlp=self._norm(layer.mlp_norm),
            mlp_out=self._norm(layer.mlp_out_norm),
            query=self._norm(layer.query_norm),
            key=self._norm(layer.key_norm),
            qkv=self._native(layer.qkv).matrix,
            out=self._native(layer.out).matrix,
            gate=self._native(gate).matrix,
            up=self._native(up).matrix,
            down=self._native(layer.down).matrix,
            residual_scale=layer.residual_scale,
            scale=layer.scale,
            cap=layer.cap or 0.0,
            rotates=layer.rotates,
            kind=self.kinds.index(self.weights.kinds[index]),
        )

    def _native(self, product: Product) -> NativeProduct:
        native = as_native(product)
        self.copied_bytes += native.packed.weights.nbytes if native is not product else 0
        self._products.append(native)
        return native

    def _norm(self, norm: Norm | None) -> structures.Norm:
        if norm is None:
            return structures.Norm()
        weight = norm.weight.float().contiguous()
        self._norm_weights.append(weight)
        return structures.Norm(weight=weight.data_ptr(), eps=norm.eps, width=len(weight))

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
    def _run(self, batch: Sequence[tuple[TokenTree, KVCache]], logits: Tensor | None) -> Tensor:
        """Return the last hidden states; write the products for the logits, where asked for."""
        total = sum(len(tree) for tree, _ in batch)
        hidden = torch.empty(total, self._decoder.hidden_size, dtype=self.weights.model_dtype)
        length = max(len(cache.tokens) + max(tree.depths) + 1 for tree, cache in batch)
        tables = [self.rotations.table(kind, length) for kind in self.kinds]
        steps = (structures.Step * len(batch))()
        kept = [
            self._fill(step, tree, cache, tables)
            for step, (tree, cache) in zip(steps, batch, strict=True)
        ]
        steps[0].hidden = hidden.data_ptr()
        steps[0].logits = None if logits is None else logits.data_ptr()
        self._library.nfox_forward(byref(self._decoder), steps, len(batch))
        del kept  # not before
        return hidden

    def _fill(
        self,
        step: structures.Step,
        tree: TokenTree,
        cache: KVCache,
        tables: list[tuple[Tensor, Tensor]],
    ) -> object:
        """Write into a step what a forward over a tree is about; return what the step points to."""
        count, past_length = len(tree), len(cache.tokens)
        rows = self._rows_of(as_transformers_cache(cache), past_length + count)
        tokens, parents = (c_int32 * count)(*tree.tokens), (c_int32 * count)(*tree.parents)
        step.num_nodes, step.past_length = count, past_length
        step.num_threads = torch.get_num_threads()
        step.tokens, step.parents = addressof(tokens), addressof(parents)
        step.keys, step.values = addressof(rows.keys), addressof(rows.values)
        step.capacity = rows.capacity
        for number, (kind, (cosines, sines)) in enumerate(zip(self.kinds, tables, strict=True)):
            step.cosines[number], step.sines[number] = cosines.data_ptr(), sines.data_ptr()
            step.rotary_widths[number] = cosines.shape[1]
            step.windows[number] = (self.weights.window or 0) * (kind != "full_attention")
        return tokens, parents, rows

    def _rows_of(self, cache: TransformersCache, length: int) -> structures.Rows:
        """Return where keys and values lie, with room for `length` rows in every layer."""
        rows = cache.reserve(len(self.weights.layers), self._like, length)
        known = self._rows.get(cache)
        if known is None or known.start != rows.data_ptr():
            pointers = c_void_p * len(rows)
            keys, values = (pointers(*(part.data_ptr() for part in rows[:, i])) for i in (0, 1))
            known = self._rows[cache] = structures.Rows(
                keys, values, rows.shape[-2], rows.data_ptr()
            )
        return known


def _check_sizes(weights: DecoderWeights, config: Any) -> None:
    """Refuse sizes that the library does not compute with.

    Raises:
        TypeError: if a size is no multiple of 16, or a head too wide.
    """
    sizes = (config.hidden_size, config.intermediate_size, weights.head_dim)
    if any(size % structures.MOST_LANES for size in sizes) or weights.head_dim > _MOST_HEAD_DIM:
        raise TypeError(f"sizes of {sizes}")
    if type(weights.layers[0].activation) not in _ACTIVATIONS:
        raise TypeError(f"the activation {type(weights.layers[0].activation).__name__}")


def _scale_of(embed: nn.Module) -> float:
    """Return what input embeddings are multiplied with, found by trying it."""
    weight: Tensor = embed.weight  # type: ignore[assignment]
    with torch.inference_mode():
        row = weight[:8].float()
        given = embed(torch.arange(len(row))).float()
        scale = float((given * row).sum() / row.square().sum())
        if not torch.allclose(given, row * scale, rtol=2e-2, atol=1e-3 * float(given.abs().max())):
            raise TypeError("embeddings that are not those of their weights")
    return scale
