"""What a layer of a decoder computes with its weights: norms, and products of a few rows.

On a CPU in bfloat16 the weights can be packed once in the layout that oneDNN multiplies with, which
halves the time of a product with few rows; adding to the residual and the gate of an MLP are then
part of the product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import GELUTanh, SiLUActivation
from typing_extensions import override

from nfox.models.unsupported import UnsupportedError

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Norm:
    """A root mean square norm (Zhang and Sennrich 2019).

    Args:
        weight: [D], in the states' dtype, or in a wider one in which the norm is computed then.
        eps: is added to the mean square.
    """

    weight: Tensor
    eps: float

    def __call__(self, states: Tensor) -> Tensor:
        """Return the normed states, of the shape and dtype of `states` [..., D]."""
        wide = states.to(self.weight.dtype)
        return functional.rms_norm(wide, self.weight.shape, self.weight, self.eps).to(states.dtype)

    @classmethod
    def of(cls, module: Any) -> Norm:
        """Return the norm that a module computes, which is found by trying it.

        Raises:
            UnsupportedError: if it computes another one.
            AttributeError: if it is no norm.
        """
        weight = module.weight.detach()
        eps = float(getattr(module, "variance_epsilon", None) or module.eps)
        probe = torch.linspace(-2, 3, len(weight), device=weight.device).to(weight.dtype)
        with torch.inference_mode():
            expected = module(probe[None])[0]
            # Gemma's weights are differences from one, which bfloat16 would round away.
            for candidate in (cls(weight, eps), cls(_widest(weight) + 1, eps)):
                if torch.allclose(candidate(probe), expected, rtol=2e-2, atol=1e-2):
                    return candidate
        raise UnsupportedError(f"{type(module).__name__} is another norm")


def _widest(weight: Tensor) -> Tensor:
    return weight.to(torch.promote_types(weight.dtype, torch.float32))


class Product:
    """A linear map of rows, x W^T + b.

    Args:
        weight: W [outputs, inputs].
        bias: b [outputs]; None for none.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight = weight
        self.bias = bias

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the product [N, outputs] of rows [N, inputs]."""
        return functional.linear(rows, self.weight, self.bias)

    def copied_bytes(self, dtype: torch.dtype) -> int:
        """Return the size of its weights where they are a copy of a model's, in this dtype."""
        return 0 if self.weight.dtype == dtype else self.weight.nbytes

    def added_to(self, residual: Tensor, rows: Tensor) -> Tensor:
        """Return [N, outputs] the residual plus the product of rows [N, inputs]."""
        return residual + self(rows)

    def gated(self, rows: Tensor, activation: Activation) -> Tensor:
        """Return [N, outputs / 2] the first half of a gated MLP, act(x G^T) * (x U^T) (Shazeer
        2020), of rows [N, inputs], where W is G above U.
        """
        gate, up = self(rows).chunk(2, -1)
        return activation(gate) * up


class PackedProduct(Product):
    """A product with a copy of its weights in oneDNN's layout: on a CPU, in bfloat16."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)
        super().__init__(packed, bias)

    @staticmethod
    def is_available() -> bool:
        """Whether torch was built with oneDNN, and the CPU computes in bfloat16."""
        operators = torch.ops.mkldnn
        return bool(
            torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
            and hasattr(operators, "_reorder_linear_weight")
            and operators._is_mkldnn_bf16_supported()
        )

    @override
    def copied_bytes(self, dtype: torch.dtype) -> int:
        return self.weight.numel() * self.weight.element_size()

    @override
    def __call__(self, rows: Tensor) -> Tensor:
        return self._activated(rows, "none", "")

    @override
    def added_to(self, residual: Tensor, rows: Tensor) -> Tensor:
        return self._combined(rows, residual, "add")

    def _activated(self, rows: Tensor, activation: str, variant: str) -> Tensor:
        """Return the product of rows, with one of oneDNN's activations of it."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self.weight, self.bias, activation, [], variant
        )
        return product

    def _combined(self, rows: Tensor, other: Tensor, operation: str) -> Tensor:
        """Return the product of rows, added to ("add") or multiplied with ("mul") another tensor of
        its shape.
        """
        result: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
            rows, other, self.weight, self.bias, operation
        )
        return result


class PackedGate(PackedProduct):
    """The packed product of a gated MLP: G and U apart, so that the activation and the product of
    both halves are part of oneDNN's products.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        gate, up = weight.chunk(2)
        gate_bias, up_bias = (None, None) if bias is None else bias.chunk(2)
        super().__init__(gate, gate_bias)
        self.up = PackedProduct(up, up_bias)

    @override
    def copied_bytes(self, dtype: torch.dtype) -> int:
        return super().copied_bytes(dtype) + self.up.copied_bytes(dtype)

    @override
    def gated(self, rows: Tensor, activation: Activation) -> Tensor:
        name = _ONEDNN_NAMES.get(type(activation))
        gate = self._activated(rows, *name) if name else activation(self(rows))
        return self.up._combined(rows, gate, "mul")


_ONEDNN_NAMES = {nn.SiLU: ("swish", ""), SiLUActivation: ("swish", ""), GELUTanh: ("gelu", "tanh")}
"""The activations that are part of a packed product, by their class: oneDNN's name and variant."""
