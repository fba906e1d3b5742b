"""A forward over a few tokens of a Llama-shaped model, without what transformers wraps around it.

A small draft model's forward is calls, not arithmetic: of a two layer model's time on a CPU about
half is spent between the products. Here are the same products alone: one for queries, keys and
values, one for both halves of the MLP, and no modules around them. Long texts are read by
transformers all the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nfox.decoding.cache import KVCache
from nfox.decoding.target import Score
from nfox.decoding.tree import TokenTree
from nfox.models.fused_weights import LayerWeights, weight_and_bias
from nfox.models.transformers_cache import past_of
from nfox.models.transformers_target import TransformersTarget

_MAX_WIDTH = 8
"""The most tokens of a forward here. Beyond, arithmetic counts, and the model reuses its masks."""

_SMALL = 2**18
"""Weights of a product up to which, on a CPU, float32 takes a quarter of the time of 16 bit."""

_TOLERANCE = {torch.bfloat16: 0.25, torch.float16: 0.25}
"""By dtype, how far logits may differ from the model's, in their standard deviations."""


def fused_score(draft: TransformersTarget) -> Score:
    """Return a function that scores chains as `draft.score` does: in less time where the model has
    a known shape and both agree on a few tokens, and `draft.score` itself otherwise.

    Weights that are used together are moved together in memory; the model keeps working on them.
    """
    try:
        fused = FusedLlama(draft)
    except (AttributeError, TypeError):  # some other shape
        return draft.score
    return fused.score if fused.matches_model() else draft.score


class FusedLlama:
    """A decoder of Llama's shape: Llama, Mistral, Qwen 2 and 3, and others with their layers.

    Args:
        draft: the model, whose weights and cache are used.

    Raises:
        AttributeError: if the model has another shape.
        TypeError: if its layers are not plain ones, or not on one device.
    """

    def __init__(self, draft: TransformersTarget) -> None:
        decoder, config = draft.model.model, draft.config
        self.draft = draft
        self.decoder = decoder
        self.norm_eps = float(config.rms_norm_eps)
        self.head_dim = int(
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        self.num_heads = int(config.num_attention_heads)
        self.num_key_heads = int(config.num_key_value_heads)
        if {weight.device for weight in draft.model.parameters()} != {draft.device}:
            raise TypeError("not on one device")
        if config.hidden_act != "silu" or getattr(config, "sliding_window", None):
            raise TypeError("another activation or attention")
        if decoder.rotary_emb.rope_type in ("dynamic", "longrope"):
            raise TypeError("rotary positions that depend on the length of the text")
        is_small = config.hidden_size * config.intermediate_size <= _SMALL
        widen = is_small and draft.device.type == "cpu" and draft.dtype in _TOLERANCE
        self.dtype = torch.float32 if widen else draft.dtype
        weights = [LayerWeights.of(layer) for layer in decoder.layers]
        self.layers = [layer.to(self.dtype) for layer in weights] if widen else weights
        self.embed: nn.Module = decoder.embed_tokens
        self.norm: Tensor = decoder.norm.weight
        self.lm_head = weight_and_bias(draft.model.lm_head)
        self._cosines = self._sines = torch.empty(0)  # [T, head_dim]

    def _rotary(self, start: int, count: int) -> tuple[Tensor, Tensor]:
        """Return the cosines and sines [count, 1, head_dim] of the rotations at positions from
        `start` on. The first half of the sines is negated, so that the halves of a state need only
        change places.
        """
        if len(self._cosines) < start + count:
            positions = torch.arange(2 * (start + count), device=self.norm.device)[None]
            cosines, sines = self.decoder.rotary_emb(self.norm, positions)
            self._cosines = cosines[0].to(self.dtype)
            self._sines = sines[0].to(self.dtype, copy=True)
            self._sines[:, : self.head_dim // 2] *= -1
        rows = slice(start, start + count)
        return self._cosines[rows, None], self._sines[rows, None]

    @torch.inference_mode()
    def score(self, tree: TokenTree, cache: KVCache) -> tuple[Tensor, Tensor]:
        """Return the logits [N, V] and hidden states [N, D] that `draft.score` returns for a chain.

        Args:
            tree: a chain of N nodes.
            cache: what has been read before, of `draft.new_cache()`.
        """
        past, count = len(cache.tokens), len(tree)
        if count > _MAX_WIDTH:
            return self.draft.score(tree, cache)
        cache.begin()
        rotary = self._rotary(past, count)
        ids = torch.tensor(tree.tokens, device=self.norm.device)
        mask = None
        if count > 1:
            everything = torch.ones(count, past + count, dtype=torch.bool, device=ids.device)
            mask = everything.tril(past)
        states = self.embed(ids).to(self.dtype)
        for index, layer in enumerate(self.layers):
            states = self._run_layer(layer, index, states, rotary, mask, cache)
        states = states.to(self.draft.dtype)
        hidden = functional.rms_norm(states, self.norm.shape, self.norm, self.norm_eps)
        logits = functional.linear(hidden, *self.lm_head)
        return logits.to(torch.promote_types(logits.dtype, torch.float32)), hidden

    def _run_layer(
        self,
        layer: LayerWeights,
        index: int,
        states: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: KVCache,
    ) -> Tensor:
        """Return the states [N, D] that leave a layer.

        Args:
            layer: its weights.
            index: its number, by which its keys and values lie in the cache.
            states: [N, D] that enter it.
            rotary: cosines and sines [N, 1, head_dim].
            mask: [N, T] bool, True at what is attended to; None for everything.
            cache: where keys and values are added.
        """
        attention_norm, mlp_norm = layer.norms
        normed = functional.rms_norm(states, attention_norm.shape, attention_norm, self.norm_eps)
        attended = self._attend(layer, index, normed, rotary, mask, cache)
        states = states + functional.linear(attended, *layer.out)
        normed = functional.rms_norm(states, mlp_norm.shape, mlp_norm, self.norm_eps)
        gate, up = functional.linear(normed, *layer.gate_up).chunk(2, -1)
        return states + functional.linear(functional.silu(gate) * up, *layer.down)

    def _attend(
        self,
        layer: LayerWeights,
        index: int,
        normed: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: KVCache,
    ) -> Tensor:
        """Return [N, heads * head_dim] the values that the states gather; see `_run_layer`."""
        heads = functional.linear(normed, *layer.qkv).view(len(normed), -1, self.head_dim)
        counts = [self.num_heads, self.num_key_heads]
        queries_keys, values = heads[:, : sum(counts)], heads[:, sum(counts) :]
        if layer.head_norms:
            parts = zip(torch.split(queries_keys, counts, 1), layer.head_norms, strict=True)
            normed_parts = [functional.rms_norm(x, w.shape, w, self.norm_eps) for x, w in parts]
            queries_keys = torch.cat(normed_parts, 1)
        cosines, sines = rotary
        swapped = queries_keys.roll(self.head_dim // 2, -1)
        rotated = torch.addcmul(queries_keys * cosines, swapped, sines)
        dtype = self.draft.dtype  # of the cache
        queries, keys = torch.split(rotated.to(dtype).transpose(0, 1)[None], counts, 1)
        values = values.to(dtype).transpose(0, 1)[None]
        keys, values = past_of(cache).update(keys, values, index)
        attended = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, enable_gqa=self.num_key_heads < self.num_heads
        )
        return attended[0].transpose(0, 1).reshape(len(normed), -1).to(self.dtype)

    @torch.inference_mode()
    def matches_model(self) -> bool:
        """Return whether the logits of a few tokens are those of the model itself."""
        cache = self.draft.new_cache()
        tokens = [(7 * i + 3) % self.draft.vocabulary_size for i in range(8)]
        self.draft.read(tokens[:5], cache)
        tree = TokenTree.chain(tokens[5], tokens[6:])
        expected, _ = self.draft.score(tree, cache)
        try:
            logits, _ = self.score(tree, cache)
        except RuntimeError:  # sizes that do not fit together as expected
            return False
        difference = (logits - expected).abs().max() / expected.std().clamp_min(1e-9)
        return bool(difference < _TOLERANCE.get(self.draft.dtype, 1e-3))
