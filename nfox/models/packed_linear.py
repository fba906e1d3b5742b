"""Linear layers that are used for inference only, with their weights packed for products of a few
rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from nfox.models.fused_products import PackedProduct, Product
from nfox.models.native.library import NativeLibraryError
from nfox.models.native.product import NativeProduct


class PackedLinear(nn.Module):
    """A linear layer that is used for inference only, with a copy of its weights in another layout.

    Args:
        linear: the layer, whose own weights are needed no more.
        product: what it computes.

    Attributes:
        product: what it computes.
        weight: an empty tensor of the dtype and device of the layer.
    """

    def __init__(self, linear: nn.Linear, product: Product) -> None:
        super().__init__()
        self.product = product
        self.weight = linear.weight.new_empty(0)

    @override
    def forward(self, states: Tensor) -> Tensor:
        """Return the product [..., outputs] of states [..., inputs]."""
        rows = states.reshape(-1, states.shape[-1])
        if isinstance(self.product, NativeProduct):
            rows = self.product.in_16_bit(rows)
        else:
            rows = self.product(rows)
        return rows.view(*states.shape[:-1], -1)


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


def pack_linear_layers(module: nn.Module) -> None:
    """Put packed layers in the place of a module's linear ones, where weights are in bfloat16 on a
    CPU that has the native library, or oneDNN with bfloat16. The module is used for inference only
    from then on.
    """
    for name, child in module.named_children():
        if type(child) is not nn.Linear:
            pack_linear_layers(child)
        elif (product := _packed(child)) is not None:
            setattr(module, name, PackedLinear(child, product))


def _packed(linear: nn.Linear) -> Product | None:
    """Return the product of a linear layer in the fastest layout that there is."""
    weight, bias = linear.weight, linear.bias
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16:
        return None
    try:
        return NativeProduct(weight, bias)
    except (NativeLibraryError, TypeError):
        return PackedProduct(weight, bias) if PackedProduct.is_available() else None
