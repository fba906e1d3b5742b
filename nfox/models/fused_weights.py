"""The weights of a Llama-shaped decoder layer, with those that are used together in one tensor."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LayerWeights:
    """The weights of one layer, as they are multiplied with; a bias is None where there is none.

    Args:
        norms: before attention, and before the MLP.
        qkv: of queries, keys and values, and their bias.
        head_norms: of queries and keys (Qwen 3); None for none.
        out: of the attention's output, and its bias.
        gate_up: of the MLP's gate and up, and their bias.
        down: of the MLP's output, and its bias.
    """

    norms: tuple[Tensor, Tensor]
    qkv: tuple[Tensor, Tensor | None]
    head_norms: tuple[Tensor, Tensor] | None
    out: tuple[Tensor, Tensor | None]
    gate_up: tuple[Tensor, Tensor | None]
    down: tuple[Tensor, Tensor | None]

    @classmethod
    def of(cls, layer: Any) -> LayerWeights:
        """Return the weights of a layer of a transformers model. Those that are used together are
        moved together in memory; the model keeps working on them.

        Raises:
            AttributeError: if the layer has another shape.
            TypeError: if its parts are not plain.
        """
        attention, mlp = layer.self_attn, layer.mlp
        has_head_norms = hasattr(attention, "q_norm")
        return cls(
            (layer.input_layernorm.weight, layer.post_attention_layernorm.weight),
            _fuse(attention.q_proj, attention.k_proj, attention.v_proj),
            (attention.q_norm.weight, attention.k_norm.weight) if has_head_norms else None,
            weight_and_bias(attention.o_proj),
            _fuse(mlp.gate_proj, mlp.up_proj),
            weight_and_bias(mlp.down_proj),
        )

    def to(self, dtype: torch.dtype) -> LayerWeights:
        """Return a copy in another dtype."""
        pairs: dict[str, Any] = {
            field.name: tuple(None if part is None else part.to(dtype) for part in pair)
            for field in fields(self)
            if (pair := getattr(self, field.name)) is not None
        }
        return replace(self, **pairs)


def weight_and_bias(linear: Any) -> tuple[Tensor, Tensor | None]:
    """Return the weight and the bias of a layer that does nothing but multiply and add.

    Raises:
        TypeError: if it is another kind of layer.
    """
    if type(linear) is not nn.Linear:
        raise TypeError(f"{type(linear).__name__} is no plain layer")
    return linear.weight, linear.bias


def _fuse(*linears: Any) -> tuple[Tensor, Tensor | None]:
    """Return the weights of several layers as one, of which theirs become parts, and their biases.

    Raises:
        TypeError: if a layer is not plain, or some have a bias and some have none.
    """
    parts = [weight_and_bias(linear) for linear in linears]
    weight = torch.cat([weight for weight, _ in parts])
    sizes = [len(part) for part, _ in parts]
    for linear, part in zip(linears, torch.split(weight, sizes), strict=True):
        linear.weight = nn.Parameter(part, requires_grad=False)
    biases = [bias for _, bias in parts if bias is not None]
    if len(biases) not in (0, len(parts)):
        raise TypeError("a bias for some of them only")
    return weight, torch.cat(biases) if biases else None
