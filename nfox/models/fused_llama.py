"""A forward over a few tokens of a Llama-shaped model, without what transformers wraps around it.

A small draft model's forward is calls, not arithmetic: of a two layer model's time on a CPU about
half is spent between the sums. Here are the same sums alone: one product for queries, keys and
values, one for both halves of the MLP, and no modules around them. Long texts are read by
transformers all the same.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nfox.decoding.cache import KVCache
from nfox.decoding.target import Score
from nfox.decoding.tree import TokenTree
from nfox.models.transformers_cache import past_of
from nfox.models.transformers_target import TransformersTarget

_SMALL = 2**18
"""Weights of a product up to which, on a CPU, float32 takes a quarter of the time of 16 bit."""

_CLOSE = {torch.bfloat16: 0.25, torch.float16: 0.25}  # of the logits' deviation; as in `Target`


def fused_score(draft: TransformersTarget) -> Score:
    """Return what scores chains as `draft.score` does, in less time where the model's shape is
    known and it agrees with the model itself on a few tokens.

    Weights that are used together are moved together in memory; the model keeps working on them.
    """
    try:
        made = FusedLlama(draft)
    except (AttributeError, TypeError):  # some other shape
        return draft.score
    return made.score if made.agrees() else draft.score


@dataclass(frozen=True)
class _Layer:
    """The weights of one layer, as they are multiplied with.

    Args:
        norms: before attention and before the MLP.
        qkv: queries, keys and values, and their bias.
        head_norms: of queries and keys (Qwen 3); None for none.
        out: of the attention.
        both: gate and up.
        down: of the MLP.
    """

    norms: tuple[Tensor, Tensor]
    qkv: tuple[Tensor, Tensor | None]
    head_norms: tuple[Tensor, Tensor] | None
    out: tuple[Tensor, Tensor | None]
    both: tuple[Tensor, Tensor | None]
    down: tuple[Tensor, Tensor | None]

    def to(self, dtype: torch.dtype) -> _Layer:
        """Return a copy in another dtype."""
        pairs: dict[str, Any] = {
            field.name: tuple(None if part is None else part.to(dtype) for part in pair)
            for field in fields(self)
            if (pair := getattr(self, field.name)) is not None
        }
        return replace(self, **pairs)


class FusedLlama:
    """A decoder of Llama's shape: Llama, Mistral, Qwen 2 and 3, and what only bears other names.

    Raises:
        AttributeError: if the model has another shape.
        TypeError: if its layers are not plain ones, or not on one device.
    """

    def __init__(self, draft: TransformersTarget) -> None:
        body, config = draft.model.model, draft.config
        self.draft = draft
        self.body = body
        self.eps = float(config.rms_norm_eps)
        self.size = int(
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        self.heads = int(config.num_attention_heads)
        self.groups = int(config.num_key_value_heads)
        if {weight.device for weight in draft.model.parameters()} != {draft.device}:
            raise TypeError("not on one device")
        if config.hidden_act != "silu" or getattr(config, "sliding_window", None):
            raise TypeError("another activation or attention")
        if body.rotary_emb.rope_type in ("dynamic", "longrope"):
            raise TypeError("positions that turn otherwise in a long text")
        small = config.hidden_size * config.intermediate_size <= _SMALL
        on_cpu = draft.device.type == "cpu"
        self.dtype = torch.float32 if small and on_cpu and draft.dtype in _CLOSE else draft.dtype
        self.layers = [self._layer(layer) for layer in body.layers]
        self.embed: nn.Module = body.embed_tokens
        self.norm: Tensor = body.norm.weight
        self.last = _plain(draft.model.lm_head)
        self._cos = self._sin = torch.empty(0)

    def _layer(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        normed = hasattr(attention, "q_norm")
        made = _Layer(
            (layer.input_layernorm.weight, layer.post_attention_layernorm.weight),
            _joined(attention.q_proj, attention.k_proj, attention.v_proj),
            (attention.q_norm.weight, attention.k_norm.weight) if normed else None,
            _plain(attention.o_proj),
            _joined(mlp.gate_proj, mlp.up_proj),
            _plain(mlp.down_proj),
        )
        return made if self.dtype == self.draft.dtype else made.to(self.dtype)

    def _turns(self, length: int) -> None:
        """Have the rotary tables [length, D] ready; the sines' first half is negative, so that the
        halves of a state need only change places.
        """
        if len(self._cos) < length:
            places = torch.arange(2 * length, device=self.norm.device)[None]
            cos, sin = self.body.rotary_emb(self.norm, places)
            self._cos, self._sin = cos[0].to(self.dtype), sin[0].to(self.dtype, copy=True)
            self._sin[:, : self.size // 2] *= -1

    @torch.inference_mode()
    def score(self, tree: TokenTree, cache: KVCache) -> tuple[Tensor, Tensor]:
        """Do what `Target.score` does, for chains."""
        base, count = len(cache.tokens), len(tree)
        if count > 8:  # arithmetic counts there, and the model's own masks are made once
            return self.draft.score(tree, cache)
        cache.begin()
        self._turns(base + count)
        turns = self._cos[base : base + count, None], self._sin[base : base + count, None]
        ids = torch.tensor(tree.tokens, device=self.norm.device)
        seen = None
        if count > 1:
            ones = torch.ones(count, base + count, dtype=torch.bool, device=ids.device)
            seen = ones.tril(base)
        states = self.embed(ids).to(self.dtype)
        for index, layer in enumerate(self.layers):
            states = self._read(layer, index, states, turns, seen, cache)
        states = states.to(self.draft.dtype)
        hidden = functional.rms_norm(states, self.norm.shape, self.norm, self.eps)
        logits = functional.linear(hidden, *self.last)
        return logits.to(torch.promote_types(logits.dtype, torch.float32)), hidden

    def _read(
        self,
        layer: _Layer,
        index: int,
        states: Tensor,
        turns: tuple[Tensor, Tensor],
        seen: Tensor | None,
        cache: KVCache,
    ) -> Tensor:
        """Return what a layer makes of states [N, D]."""
        first, second = layer.norms
        normed = functional.rms_norm(states, first.shape, first, self.eps)
        heads = functional.linear(normed, *layer.qkv).view(len(states), -1, self.size)
        asking = self.heads + self.groups  # queries and keys, which turn
        turned = heads[:, :asking]
        if layer.head_norms:
            parts = torch.split(turned, [self.heads, self.groups], 1)
            both = zip(parts, layer.head_norms, strict=True)
            turned = torch.cat(
                [functional.rms_norm(x, weight.shape, weight, self.eps) for x, weight in both], 1
            )
        cos, sin = turns
        turned = torch.addcmul(turned * cos, turned.roll(self.size // 2, -1), sin)
        kept = self.draft.dtype  # of the cache
        turned = turned.to(kept).transpose(0, 1)[None]
        queries, keys = torch.split(turned, [self.heads, self.groups], 1)
        values = heads[:, asking:].to(kept).transpose(0, 1)[None]
        keys, values = past_of(cache).update(keys, values, index)
        gathered = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=seen, enable_gqa=self.groups < self.heads
        )
        gathered = gathered[0].transpose(0, 1).reshape(len(states), -1).to(self.dtype)
        states = states + functional.linear(gathered, *layer.out)
        normed = functional.rms_norm(states, second.shape, second, self.eps)
        gate, up = functional.linear(normed, *layer.both).chunk(2, -1)
        return states + functional.linear(functional.silu(gate) * up, *layer.down)

    @torch.inference_mode()
    def agrees(self) -> bool:
        """Whether the model itself says the same of a few tokens."""
        cache = self.draft.new_cache()
        text = [(7 * i + 3) % self.draft.vocabulary_size for i in range(8)]
        self.draft.read(text[:5], cache)
        tree = TokenTree.chain(text[5], text[6:])
        expected, _ = self.draft.score(tree, cache)
        try:
            found, _ = self.score(tree, cache)
        except RuntimeError:  # sizes that do not fit together as expected
            return False
        apart = (found - expected).abs().max() / expected.std().clamp_min(1e-9)
        return bool(apart < _CLOSE.get(self.draft.dtype, 1e-3))


def _plain(linear: Any) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of a layer that does nothing but multiply and add."""
    if type(linear) is not nn.Linear:
        raise TypeError(f"{type(linear).__name__} is no plain layer")
    return linear.weight, linear.bias


def _joined(*linears: Any) -> tuple[Tensor, Tensor | None]:
    """Return several layers' weights and biases as one, of which they become parts."""
    parts = [_plain(linear) for linear in linears]
    weight = torch.cat([weight for weight, _ in parts])
    rows = [len(part) for part, _ in parts]
    for linear, part in zip(linears, torch.split(weight, rows), strict=True):
        linear.weight = nn.Parameter(part, requires_grad=False)
    biases = [bias for _, bias in parts if bias is not None]
    if len(biases) not in (0, len(parts)):
        raise TypeError("a bias for some of them only")
    return weight, torch.cat(biases) if biases else None
