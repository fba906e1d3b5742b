"""Layers that are used for inference only, with their weights packed for a few rows."""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import byref, c_void_p
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from nfox.models.fused_products import PackedProduct, Product
from nfox.models.native import structures
from nfox.models.native.library import NativeLibraryError, native_library
from nfox.models.native.product import NativeProduct
from nfox.models.native.quantising import GROUP, WeightFormat, has_room_for_scales
from nfox.models.unsupported import UnsupportedError


class PackedLinear(nn.Module):
    """A linear layer that is used for inference only, with a copy of its weights in another layout.

    Args:
        linear: the layer, whose own weights are needed no more.
        product: what it computes.

    Attributes:
        product: what it computes.
        weight: an empty tensor of the dtype and device of the layer.
        in_features: the size of its inputs.
        out_features: the size of its outputs.
    """

    def __init__(self, linear: nn.Linear, product: Product) -> None:
        super().__init__()
        self.product = product
        self.weight = linear.weight.new_empty(0)
        self.in_features, self.out_features = linear.in_features, linear.out_features

    @property
    def format(self) -> WeightFormat:
        """The format of the weights."""
        return self.product.packed.format if isinstance(self.product, NativeProduct) else "bfloat16"

    def unusable_scales(self) -> Tensor | None:
        """Return the scales or the least numbers, where some of them are NaN or infinite, else
        None.
        """
        if not isinstance(self.product, NativeProduct):
            return None
        parts = (self.product.packed.scales, self.product.packed.least)
        return next(
            (part for part in parts if part is not None and not part.isfinite().all()), None
        )

    @property
    def nbytes(self) -> int:
        """The bytes of the weights, with their scales."""
        if not isinstance(self.product, NativeProduct):
            return self.product.weight.nbytes
        packed = self.product.packed
        return sum(
            part.nbytes
            for part in (packed.weights, packed.scales, packed.least)
            if part is not None
        )

    @override
    def forward(self, states: Tensor) -> Tensor:
        """Return the product [..., outputs] of states [..., inputs]."""
        rows = states.reshape(-1, states.shape[-1])
        if isinstance(self.product, NativeProduct):
            rows = self.product.in_16_bit(rows)
        else:
            rows = self.product(rows)
        return rows.view(*states.shape[:-1], -1)


def is_tied(config: Any) -> bool:
    """Return whether a model's LM head has the weights of its input embeddings. Not every config of
    code that comes with a checkpoint says so.
    """
    return bool(getattr(config, "tie_word_embeddings", False))


def packed_layers(model: nn.Module) -> Iterator[PackedLinear]:
    """Yield the layers of a model that are packed."""
    return (module for module in model.modules() if isinstance(module, PackedLinear))


class PackedNorm(nn.Module):
    """A root mean square norm that the native library computes, for inference only.

    Args:
        norm: the norm, in bfloat16 on a CPU.

    Attributes:
        weight: [D] float32.
        eps: is added to the mean square.

    Raises:
        NativeLibraryError: if there is no native library.
        UnsupportedError: if the norm has another width than the library takes.
    """

    def __init__(self, norm: nn.RMSNorm) -> None:
        super().__init__()
        self.weight, self.eps = norm.weight.detach().float(), norm.eps or 0.0
        width = len(self.weight)
        if width % structures.MOST_LANES:
            raise UnsupportedError(f"a norm of {width} numbers")
        self._library = native_library()
        self.norm = structures.Norm(weight=self.weight.data_ptr(), eps=self.eps, width=width)

    @override
    def forward(self, states: Tensor) -> Tensor:
        """Return the normed states [..., D], bfloat16, of states [..., D] in bfloat16."""
        states = states.contiguous()
        result = torch.empty_like(states)
        given, found = (c_void_p(part.data_ptr()) for part in (states, result))
        count = states.numel() // len(self.weight)
        self._library.nfox_norm(byref(self.norm), given, count, found)
        return result


def native_product(linear: nn.Module) -> NativeProduct:
    """Return what the native library computes of a linear layer.

    Raises:
        UnsupportedError: if it is not packed for it.
    """
    product = linear.product if isinstance(linear, PackedLinear) else None
    if not isinstance(product, NativeProduct):
        raise UnsupportedError("a linear layer that is not the native library's")
    return product


def add_silu(residual: Tensor, linear: nn.Module, states: Tensor) -> Tensor:
    """Return [..., D] the residual plus SiLU of what a linear layer makes of states, in one call
    where it is packed for the native library.

    Args:
        residual: [..., D].
        linear: with D outputs.
        states: [..., inputs].
    """
    product = linear.product if isinstance(linear, PackedLinear) else None
    if not isinstance(product, NativeProduct):
        return residual + functional.silu(linear(states))
    rows = product.in_16_bit(states.reshape(-1, states.shape[-1]), residual, silu=True)
    return rows.view(residual.shape)


def pack_layers(module: nn.Module) -> None:
    """Put packed layers in the place of a module's linear layers and norms, where weights are in
    bfloat16 on a CPU that has the native library, or, of linear layers, oneDNN with bfloat16. The
    module is used for inference only from then on, and drafts: by the native library its weights
    have 8 bits, which are read faster and cost no acceptance that was found.
    """
    for name, child in module.named_children():
        if type(child) is nn.Linear or isinstance(child, nn.RMSNorm):
            weight = child.weight
            if weight.device.type == "cpu" and weight.dtype == torch.bfloat16:
                setattr(module, name, _packed(child))
        else:
            pack_layers(child)


def _packed(layer: nn.Linear | nn.RMSNorm) -> nn.Module:
    """Return a layer in the fastest layout that there is."""
    try:
        if isinstance(layer, nn.RMSNorm):
            return PackedNorm(layer)
        is_coarse = layer.in_features % GROUP or not has_room_for_scales(layer.weight)
        weight_format: WeightFormat = "bfloat16" if is_coarse else "int8"
        return PackedLinear(layer, NativeProduct(layer.weight, layer.bias, weight_format))
    except (NativeLibraryError, UnsupportedError):
        if isinstance(layer, nn.RMSNorm) or not PackedProduct.is_available():
            return layer
        return PackedLinear(layer, PackedProduct(layer.weight, layer.bias))
