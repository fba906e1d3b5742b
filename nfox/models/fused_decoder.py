"""A forward over a token tree of a decoder of Llama's kind, without what transformers wraps around
it.

A narrow forward is calls, not arithmetic: of a small model's time on a CPU about half is spent
between the products, and of a larger one's a third. Here are the same products alone: one for
queries, keys and values, one for both halves of the MLP, and no modules around them. Long texts are
read by transformers all the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nfox.decoding.cache import KVCache
from nfox.decoding.tree import TokenTree
from nfox.decoding.tree_mask import tree_mask, within_window
from nfox.models.decoder_weights import LayerWeights, has_room_for_copy
from nfox.models.fused_positions import LayerInputs, Rotations
from nfox.models.fused_products import Norm, PackedProduct, Product
from nfox.models.fused_weights import WeightLayout
from nfox.models.transformers_cache import past_of

_SMALL = 2**18
"""Weights of a product up to which, on a CPU, float32 takes a quarter of the time of 16 bit."""


class FusedDecoder:
    """The decoder of a model of transformers: Llama, Mistral, Qwen 2 and 3, Gemma 2 and 3, Phi 3,
    OLMo 2, Granite, SmolLM 3, and others with their layers.

    Args:
        model: the model, whose weights and cache are used.
        config: the config of its decoder.

    Attributes:
        description: what runs the forward, in a few words.
        unembedding: the product for the logits, of states in the model's dtype.
        copied_bytes: the size of the copies of weights, which are packed, or of another dtype.

    Raises:
        AttributeError: if the model has another shape.
        UnsupportedError: if its layers are not plain ones, or not on one device.
    """

    def __init__(self, model: Any, config: Any) -> None:
        is_cpu, self.model_dtype = model.device.type == "cpu", model.dtype
        is_small = config.hidden_size * config.intermediate_size <= _SMALL
        widen = is_small and is_cpu and self.model_dtype.itemsize == 2
        self.dtype = torch.float32 if widen else self.model_dtype
        packs = is_cpu and self.model_dtype == torch.bfloat16 and has_room_for_copy(model)
        packs = packs and PackedProduct.is_available()
        self.description = "fused, weights packed for oneDNN" if packs else "fused"
        layout = WeightLayout(self.dtype, packs and not widen, packs)
        self.weights = layout.decoder(model, config)
        self.unembedding = self.weights.unembedding
        self.copied_bytes = sum(
            product.copied_bytes(self.model_dtype) for product in self.weights.products
        )
        self.rotations = Rotations(self.weights.rotary, self.weights.norm.weight, self.dtype)

    @torch.inference_mode()
    def hidden_states(self, tree: TokenTree, cache: KVCache) -> Tensor:
        """Return the last hidden states [N, D] after every node of a tree, and write the keys and
        values of the nodes behind the committed rows of the cache.

        Args:
            tree: N nodes.
            cache: what has been read before, of the target of this model.
        """
        weights, past_length = self.weights, len(cache.tokens)
        shared = {k: self._layer_inputs(k, tree, past_length) for k in set(weights.kinds)}
        ids = torch.tensor(tree.tokens, device=weights.device)
        states = weights.embed(ids).to(self.dtype)
        if weights.embedding_scale != 1.0:
            states = states * weights.embedding_scale
        for index, (layer, kind) in enumerate(zip(weights.layers, weights.kinds, strict=True)):
            states = self._run_layer(layer, index, states, shared[kind], cache)
        return weights.norm(states.to(self.model_dtype))

    def score(self, tree: TokenTree, cache: KVCache) -> tuple[Tensor, Tensor]:
        """Return the products for the logits [N, V], and what `hidden_states` does."""
        hidden = self.hidden_states(tree, cache)
        return self.unembedding(hidden), hidden

    def _layer_inputs(self, kind: str, tree: TokenTree, past_length: int) -> LayerInputs:
        """Return what the layers of a kind share in a forward over a tree after a past."""
        weights, count, mask = self.weights, len(tree), None
        window = weights.window if kind != "full_attention" else None
        if count > 1 or (window is not None and past_length >= window):
            visible = tree_mask(tree, past_length, self.model_dtype)
            mask = visible.additive if window is None else within_window(visible, window)
            # The query heads that share keys are rows of one product.
            mask = mask[0].repeat(weights.num_heads // weights.num_key_heads, 1).to(weights.device)
        return LayerInputs(*self.rotations.at(kind, past_length, tree), mask)

    def _run_layer(
        self, layer: LayerWeights, index: int, states: Tensor, shared: LayerInputs, cache: KVCache
    ) -> Tensor:
        """Return the states [N, D] that leave a layer.

        Args:
            layer: what it computes with.
            index: its number, by which its keys and values lie in the cache.
            states: [N, D] that enter it.
            shared: what it shares with other layers.
            cache: where keys and values are added.
        """
        normed = layer.attention_norm(states) if layer.attention_norm else states
        attended = self._attend(layer, index, normed, shared, cache)
        states = _added(states, attended, layer.out, layer.attended_norm, layer.residual_scale)
        normed = layer.mlp_norm(states) if layer.mlp_norm else states
        gated = layer.gate_up.gated(normed, layer.activation)
        return _added(states, gated, layer.down, layer.mlp_out_norm, layer.residual_scale)

    def _attend(
        self, layer: LayerWeights, index: int, normed: Tensor, shared: LayerInputs, cache: KVCache
    ) -> Tensor:
        """Return [N, heads * head_dim] the values that the states gather; see `_run_layer`."""
        head_dim, num_key_heads = self.weights.head_dim, self.weights.num_key_heads
        heads = layer.qkv(normed).view(len(normed), -1, head_dim)
        counts = [self.weights.num_heads, num_key_heads]
        queries_keys, values = heads[:, : sum(counts)], heads[:, sum(counts) :]
        if layer.query_norm and layer.key_norm:
            parts = zip(
                torch.split(queries_keys, counts, 1),
                (layer.query_norm, layer.key_norm),
                strict=True,
            )
            queries_keys = torch.cat([_normed_heads(part, norm) for part, norm in parts], 1)
        if layer.rotates:
            queries_keys = shared.rotate(queries_keys)
        queries, keys = torch.split(queries_keys.to(self.model_dtype), counts, 1)
        values = values.to(self.model_dtype)
        # [N, heads, head_dim] -> [1, heads, N, head_dim]
        keys, values = keys.transpose(0, 1)[None], values.transpose(0, 1)[None]
        keys, values = past_of(cache).update(keys, values, index)
        # The queries of heads that share keys, [1, key heads, group * N, head_dim].
        grouped = queries.reshape(len(normed), num_key_heads, -1, head_dim)
        rows = grouped.permute(1, 2, 0, 3).flatten(1, 2)
        attended = _attention(rows[None], keys, values, shared.mask, layer.scale, layer.cap)[0]
        by_node = attended.view(num_key_heads, -1, len(normed), head_dim).permute(2, 0, 1, 3)
        states: Tensor = by_node.reshape(len(normed), -1).to(self.dtype)
        return states


def _normed_heads(heads: Tensor, norm: Norm) -> Tensor:
    """Return queries or keys [N, heads, head_dim], normed head by head where the norm is as wide as
    a head (Qwen 3), else all heads of a token at once (OLMo 2).
    """
    if len(norm.weight) == heads.shape[-1]:
        return norm(heads)
    return norm(heads.flatten(1)).view(heads.shape)


def _added(
    residual: Tensor, rows: Tensor, product: Product, norm: Norm | None, scale: float
) -> Tensor:
    """Return the residual [N, D] plus the product of rows, normed and scaled."""
    if norm is None and scale == 1.0:
        return product.added_to(residual, rows)
    update = product(rows)
    return residual + (norm(update) if norm else update) * scale


def _attention(
    rows: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, cap: float | None
) -> Tensor:
    """Return [1, H, R, D] the values that rows of queries [1, H, R, D] gather.

    Args:
        rows: the queries.
        keys: [1, H, T, D].
        values: [1, H, T, D].
        mask: [R, T] additive; None where everything is attended to.
        scale: of the scores.
        cap: the bound of the scores; None for none.
    """
    if cap is None:
        if rows.shape[2] == 1 and mask is None:  # torch takes twice as long for one row as for two
            rows = rows.expand(-1, -1, 2, -1)
            return functional.scaled_dot_product_attention(rows, keys, values, scale=scale)[
                :, :, :1
            ]
        return functional.scaled_dot_product_attention(
            rows, keys, values, attn_mask=mask, scale=scale
        )
    scores = torch.tanh(rows @ keys.mT * (scale / cap)) * cap
    scores = scores if mask is None else scores + mask
    wide = torch.promote_types(scores.dtype, torch.float32)
    return scores.softmax(-1, dtype=wide).to(values.dtype) @ values
