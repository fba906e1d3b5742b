"""Products of a few rows by the native library."""

from __future__ import annotations

from ctypes import byref, c_void_p

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from nfox.models.fused_products import Product
from nfox.models.native import structures
from nfox.models.native.library import native_library


class NativeProduct(Product):
    """A product with a copy of its weights in the native library's layout.

    Args:
        weight: W [outputs, inputs], bfloat16, with an even number of inputs.
        bias: b [outputs]; None for none.

    Attributes:
        matrix: the weights, as the library takes them.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._library = native_library()
        self.outputs, inputs = weight.shape
        lanes = self._library.nfox_lanes()
        missing = -self.outputs % lanes
        padded = functional.pad(weight.detach(), (0, 0, 0, missing)).contiguous()
        # Pairs of inputs, block by block: [outputs / lanes, inputs / 2, lanes].
        pairs = padded.view(torch.int32).view(-1, lanes, inputs // 2)
        packed = pairs.transpose(1, 2).contiguous()
        if bias is not None:
            bias = functional.pad(bias.detach().float(), (0, missing)).contiguous()
        super().__init__(packed, bias)
        self.matrix = structures.Matrix(
            weights=packed.data_ptr(),
            bias=None if bias is None else bias.data_ptr(),
            outputs=self.outputs,
            inputs=inputs,
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
            torch.get_num_threads(),
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
            torch.get_num_threads(),
        )
        return result
