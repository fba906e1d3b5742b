"""Products of a few rows by the native library."""

from __future__ import annotations

from ctypes import byref, c_void_p

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from nfox.models.fused_products import Product
from nfox.models.native import structures
from nfox.models.native.library import native_library, thread_count
from nfox.models.native.packing import PackedWeights
from nfox.models.native.quantising import WeightFormat

_FORMATS: dict[WeightFormat, int] = {"bfloat16": 0, "int8": 1, "int4": 2}
"""The number of a format in the library."""


class NativeProduct(Product):
    """A product with weights in the native library's layout.

    Args:
        weight: W [outputs, inputs], bfloat16, with an even number of inputs, of which there will be
            a copy; or weights that are packed already.
        bias: b [outputs]; None for none.
        weight_format: of the copy.

    Raises:
        NativeLibraryError: if there is no native library.
        UnsupportedError: if the number of inputs is odd.

    Attributes:
        packed: the weights.
        matrix: the weights, as the library takes them.
    """

    def __init__(
        self,
        weight: Tensor | PackedWeights,
        bias: Tensor | None,
        weight_format: WeightFormat = "bfloat16",
    ) -> None:
        self._library = native_library()
        lanes = self._library.nfox_lanes()
        if isinstance(weight, Tensor):
            weight = PackedWeights.of(weight, weight_format)
        self.packed, self.outputs = weight, weight.outputs
        if bias is not None:
            missing = -len(bias) % lanes
            bias = functional.pad(bias.detach().float(), (0, missing)).contiguous()
        super().__init__(weight.weights, bias)
        self.matrix = structures.Matrix(
            weights=_address(weight.weights),
            scales=_address(weight.scales),
            least=_address(weight.least),
            bias=_address(bias),
            outputs=weight.outputs,
            inputs=weight.inputs,
            format=_FORMATS[weight.format],
        )

    @override
    def __call__(self, rows: Tensor) -> Tensor:
        """Return the product [N, outputs], float32, of rows [N, inputs], bfloat16."""
        rows, result = rows.contiguous(), torch.empty(len(rows), self.outputs)
        self._library.nfox_multiply(
            byref(self.matrix),
            c_void_p(rows.data_ptr()),
            len(rows),
            c_void_p(result.data_ptr()),
            thread_count(),
        )
        return result

    def in_16_bit(
        self, rows: Tensor, residual: Tensor | None = None, *, silu: bool = False
    ) -> Tensor:
        """Return [N, outputs], bfloat16, the product of rows [N, inputs], bfloat16.

        Args:
            rows: what is multiplied.
            residual: [N, outputs], bfloat16, to which it is added; None for none.
            silu: whether SiLU of the product is taken before.
        """
        rows, result = rows.contiguous(), rows.new_empty(len(rows), self.outputs)
        residual = None if residual is None else residual.contiguous()
        self._library.nfox_linear(
            byref(self.matrix),
            c_void_p(rows.data_ptr()),
            len(rows),
            0 if silu else -1,
            None if residual is None else c_void_p(residual.data_ptr()),
            c_void_p(result.data_ptr()),
            thread_count(),
        )
        return result


def as_native(product: Product) -> NativeProduct:
    """Return a product as the library takes it, which has a copy of weights that are not packed."""
    if isinstance(product, NativeProduct):
        return product
    return NativeProduct(product.weight, product.bias)


def halves(gate_up: Product) -> tuple[Product, Product]:
    """Return the products of the first and of the second half of the outputs."""
    biases = (None, None) if gate_up.bias is None else gate_up.bias.chunk(2)
    if isinstance(gate_up, NativeProduct):
        gate, up = gate_up.packed.split([gate_up.outputs // 2] * 2)
        return NativeProduct(gate, biases[0]), NativeProduct(up, biases[1])
    first, second = gate_up.weight.chunk(2)
    return Product(first, biases[0]), Product(second, biases[1])


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
