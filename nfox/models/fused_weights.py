"""What a decoder layer of Llama's kind computes with: its norms, and the products of its weights,
with those that are used together in one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nfox.models.fused_products import Activation, Norm, PackedGate, PackedProduct, Product


@dataclass(frozen=True)
class LayerWeights:
    """What one layer computes with. Absent norms are None.

    Args:
        attention_norm: of the states that enter the attention.
        attended_norm: of what the attention gives, before it is added to the residual.
        mlp_norm: of the states that enter the MLP.
        mlp_out_norm: of what the MLP gives, before it is added to the residual.
        qkv: the product for queries, keys and values.
        query_norm: of queries: of each head's where it is as wide as a head, else of all at once.
        key_norm: of keys, likewise.
        out: the product of the attention's output.
        gate_up: the product of the MLP's gate and up.
        activation: of the gate.
        down: the product of the MLP's output.
        residual_scale: what is added to the residual is multiplied with it (Granite).
        scale: what the scores of attention are multiplied with.
        cap: the bound of the scores of attention, cap * tanh(score / cap) (Gemma 2); None for none.
        rotates: whether queries and keys are rotated by their positions.
    """

    attention_norm: Norm | None
    attended_norm: Norm | None
    mlp_norm: Norm | None
    mlp_out_norm: Norm | None
    qkv: Product
    query_norm: Norm | None
    key_norm: Norm | None
    out: Product
    gate_up: Product
    activation: Activation
    down: Product
    residual_scale: float
    scale: float
    cap: float | None
    rotates: bool


# The norms of a layer, in the order of `LayerWeights`, by a name that only layers of a kind have.
_NORMS = {
    "pre_feedforward_layernorm": (  # Gemma 2 and 3
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
    "post_feedforward_layernorm": (  # OLMo 2
        None,
        "post_attention_layernorm",
        None,
        "post_feedforward_layernorm",
    ),
    "input_layernorm": ("input_layernorm", None, "post_attention_layernorm", None),
}


@dataclass(frozen=True)
class WeightLayout:
    """How the weights of a fused forward lie in memory.

    Args:
        dtype: of the states, and of weights that are not packed.
        pack: pack copies of the weights for oneDNN.
    """

    dtype: torch.dtype
    pack: bool

    def product(self, linear: Any) -> Product:
        """Return the product of a layer that does nothing but multiply and add.

        Raises:
            TypeError: if it is another kind of layer.
        """
        return self._product(*_weight_and_bias(linear), PackedProduct)

    def layer(self, layer: Any) -> LayerWeights:
        """Return what a layer of a transformers model computes with.

        Weights that are used together are moved together in memory where they are used as they
        are, and the model keeps working on them; packed ones and those of another dtype are copies.

        Raises:
            AttributeError: if the layer has another shape.
            TypeError: if its parts compute something else.
        """
        attention, mlp = layer.self_attn, layer.mlp
        names = next(names for name, names in _NORMS.items() if hasattr(layer, name))
        norms = [self._norm(layer, name) for name in names]
        return LayerWeights(
            attention_norm=norms[0],
            attended_norm=norms[1],
            mlp_norm=norms[2],
            mlp_out_norm=norms[3],
            qkv=self._joint(attention, "qkv_proj", "q_proj", "k_proj", "v_proj"),
            query_norm=self._norm(attention, "q_norm"),
            key_norm=self._norm(attention, "k_norm"),
            out=self.product(attention.o_proj),
            gate_up=self._joint(mlp, "gate_up_proj", "gate_proj", "up_proj", packed=PackedGate),
            activation=getattr(mlp, "act_fn", None) or mlp.activation_fn,
            down=self.product(mlp.down_proj),
            residual_scale=float(getattr(layer, "residual_multiplier", 1.0)),
            scale=float(attention.scaling),
            cap=getattr(attention, "attn_logit_softcapping", None),
            rotates=bool(getattr(attention, "use_rope", True)),
        )

    def _norm(self, module: Any, name: str | None) -> Norm | None:
        if name is None or not hasattr(module, name):
            return None
        norm = Norm.of(getattr(module, name))
        # A weight may be wider than the states already, see `Norm.of`.
        return replace(
            norm, weight=norm.weight.to(torch.promote_types(norm.weight.dtype, self.dtype))
        )

    def _product(self, weight: Tensor, bias: Tensor | None, packed: type[PackedProduct]) -> Product:
        if self.pack:
            return packed(weight, bias)
        return Product(weight.to(self.dtype), None if bias is None else bias.to(self.dtype))

    def _joint(
        self, module: Any, joint: str, *apart: str, packed: type[PackedProduct] = PackedProduct
    ) -> Product:
        """Return the product of weights that a module has jointly under one name, or apart under
        several.
        """
        if hasattr(module, joint):
            return self._product(*_weight_and_bias(getattr(module, joint)), packed)
        linears = [getattr(module, name) for name in apart]
        parts = [_weight_and_bias(linear) for linear in linears]
        biases = [bias for _, bias in parts if bias is not None]
        if len(biases) not in (0, len(parts)):
            raise TypeError("a bias for some of the weights only")
        weight = torch.cat([weight for weight, _ in parts])
        if not self.pack and weight.dtype == self.dtype:
            rows = torch.split(weight, [len(part) for part, _ in parts])
            for linear, part in zip(linears, rows, strict=True):
                linear.weight = nn.Parameter(part, requires_grad=False)
        return self._product(weight, torch.cat(biases) if biases else None, packed)


def _weight_and_bias(linear: Any) -> tuple[Tensor, Tensor | None]:
    """Return the weight and the bias of a layer that does nothing but multiply and add.

    Raises:
        TypeError: if it is another kind of layer.
    """
    if type(linear) is not nn.Linear:
        raise TypeError(f"{type(linear).__name__} is no plain layer")
    return linear.weight.detach(), None if linear.bias is None else linear.bias.detach()
