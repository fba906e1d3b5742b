"""From a model of transformers to what its decoder computes with. Weights that are used together
are in one product.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nfox.models.attention_windows import has_other_windows
from nfox.models.decoder_weights import DecoderWeights, LayerWeights
from nfox.models.fused_products import Norm, PackedGate, PackedProduct, Product
from nfox.models.native.packing import PackedWeights
from nfox.models.native.product import NativeProduct
from nfox.models.native.structures import MOST_LANES
from nfox.models.packed_layers import PackedLinear
from nfox.models.unsupported import UnsupportedError

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
        pack: pack copies of the layers' weights for oneDNN.
        pack_vocabulary: pack a copy of the vocabulary matrix for oneDNN.
        takes_native: take layers that are packed for the native library as they are.
    """

    dtype: torch.dtype
    pack: bool = False
    pack_vocabulary: bool = False
    takes_native: bool = False

    def decoder(self, model: Any, config: Any) -> DecoderWeights:
        """Return what the decoder of a transformers model computes with.

        Args:
            model: a causal language model.
            config: the config of its decoder.

        Raises:
            AttributeError: if the model has another shape.
            UnsupportedError: if its layers are not plain ones, have another window than a sliding
                one, or are not on one device.
        """
        decoder = model.model
        if {weight.device for weight in model.parameters()} != {model.device}:
            raise UnsupportedError("not on one device")
        if any(hasattr(module, "_hf_hook") for module in model.modules()):
            raise UnsupportedError("layers whose weights come when they are run")
        if has_other_windows(config):
            raise UnsupportedError("layers with another window than a sliding one")
        return DecoderWeights(
            layers=tuple(self.layer(layer) for layer in decoder.layers),
            norm=Norm.of(decoder.norm),
            unembedding=replace(self, dtype=model.dtype, pack=self.pack_vocabulary).product(
                model.lm_head
            ),
            embed=decoder.embed_tokens,
            embedding_scale=float(getattr(config, "embedding_multiplier", 1.0)),
            rotary=decoder.rotary_emb,
            num_heads=int(config.num_attention_heads),
            num_key_heads=int(config.num_key_value_heads),
            head_dim=int(decoder.layers[0].self_attn.head_dim),
            kinds=_kinds(config, len(decoder.layers)),
            window=getattr(config, "sliding_window", None),
            model_dtype=model.dtype,
            device=model.device,
        )

    def product(self, linear: Any) -> Product:
        """Return the product of a layer that does nothing but multiply and add.

        Raises:
            UnsupportedError: if it is another kind of layer.
        """
        if self.takes_native and isinstance(linear, PackedLinear):
            return linear.product
        return self._product(*_weight_and_bias(linear), PackedProduct)

    def layer(self, layer: Any) -> LayerWeights:
        """Return what a layer of a transformers model computes with.

        Weights that are used together are moved together in memory where they are used as they
        are, and the model keeps working on them; packed ones and those of another dtype are copies.

        Raises:
            AttributeError: if the layer has another shape.
            UnsupportedError: if its parts compute something else.
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
        linears = [getattr(module, name) for name in ([joint] if hasattr(module, joint) else apart)]
        if self.takes_native and all(isinstance(linear, PackedLinear) for linear in linears):
            return _joined(linears)
        if hasattr(module, joint):
            return self._product(*_weight_and_bias(linears[0]), packed)
        parts = [_weight_and_bias(linear) for linear in linears]
        biases = [bias for _, bias in parts if bias is not None]
        if len(biases) not in (0, len(parts)):
            raise UnsupportedError("a bias for some of the weights only")
        weight = torch.cat([weight for weight, _ in parts])
        if not self.pack and weight.dtype == self.dtype:
            rows = torch.split(weight, [len(part) for part, _ in parts])
            for linear, part in zip(linears, rows, strict=True):
                linear.weight = nn.Parameter(part, requires_grad=False)
        return self._product(weight, torch.cat(biases) if biases else None, packed)


def _joined(linears: list[PackedLinear]) -> Product:
    """Return one product of layers that are packed for the native library, in the memory of which
    theirs then are.

    Raises:
        UnsupportedError: if they are packed otherwise, or their outputs fill no whole blocks.
    """
    products = [linear.product for linear in linears]
    if len(products) == 1:
        return products[0]
    native = [product for product in products if isinstance(product, NativeProduct)]
    counts = [linear.out_features for linear in linears]
    if len(native) < len(products) or any(count % MOST_LANES for count in counts):
        raise UnsupportedError(f"products of {counts} outputs cannot be joined")
    biases = [product.bias for product in native if product.bias is not None]
    if len(biases) not in (0, len(native)):
        raise UnsupportedError("a bias for some of the weights only")
    packed = PackedWeights.joined([product.packed for product in native])
    for linear, product, part in zip(linears, native, packed.split(counts), strict=True):
        linear.product = NativeProduct(part, product.bias)
    return NativeProduct(packed, torch.cat(biases) if biases else None)


def _weight_and_bias(linear: Any) -> tuple[Tensor, Tensor | None]:
    """Return the weight and the bias of a layer that does nothing but multiply and add.

    Raises:
        UnsupportedError: if it is another kind of layer.
    """
    if type(linear) is not nn.Linear:
        raise UnsupportedError(f"{type(linear).__name__} is no plain layer")
    if type(linear.weight) is not nn.Parameter:  # torchao's weights are tensors of other classes
        raise UnsupportedError(f"{type(linear.weight).__name__} is no plain weight")
    return linear.weight.detach(), None if linear.bias is None else linear.bias.detach()


def _kinds(config: Any, count: int) -> tuple[str, ...]:
    """Return the kind of attention of every layer: "full_attention" where there is no window."""
    if not getattr(config, "sliding_window", None):
        return ("full_attention",) * count
    return tuple(getattr(config, "layer_types", None) or ["sliding_attention"] * count)
