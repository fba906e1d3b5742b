"""Weights in the layout in which the native library multiplies with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ctypes import c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from nfox.models.native.library import native_library, thread_count
from nfox.models.native.quantising import Quantised, WeightFormat, quantise
from nfox.models.unsupported import UnsupportedError


@dataclass(frozen=True)
class PackedWeights:
    """The weights W [outputs, inputs] of a product in the native library's layout.

    Args:
        weights: [blocks of outputs, words of inputs, lanes].
        scales: [blocks, inputs / 32, lanes], float16; None in bfloat16.
        least: likewise; None where it is 0.
        outputs: the rows of W.
        inputs: the columns of W.
        format: of the weights.
    """

    weights: Tensor
    scales: Tensor | None
    least: Tensor | None
    outputs: int
    inputs: int
    format: WeightFormat

    @classmethod
    def of(cls, weight: Tensor, weight_format: WeightFormat) -> PackedWeights:
        """Pack a copy of W [outputs, inputs].

        Args:
            weight: W, bfloat16, on the CPU.
            weight_format: of the copy. Quantised ones take `inputs` that are a multiple of 32.

        Raises:
            NativeLibraryError: if there is no native library.
            UnsupportedError: if there are no pairs of inputs.
        """
        weight = weight.detach()
        if weight.shape[1] % 2:
            raise UnsupportedError(f"an odd number of inputs: {weight.shape[1]}")
        if weight_format != "bfloat16":
            return cls.of_quantised(quantise(weight, weight_format))
        blocks, (outputs, inputs) = _blocks(weight.contiguous().view(torch.int32)), weight.shape
        return cls(blocks, None, None, outputs, inputs, weight_format)

    @classmethod
    def of_quantised(cls, quantised: Quantised) -> PackedWeights:
        """Pack a copy of weights that are quantised already.

        Raises:
            NativeLibraryError: if there is no native library.
        """
        least, form = quantised.least, quantised.format
        outputs, inputs = quantised.integers.shape
        return cls(
            _blocks(_words(quantised.integers, form)),
            _blocks(quantised.scales),
            None if least is None else _blocks(least),
            outputs,
            inputs,
            form,
        )

    @classmethod
    def joined(cls, parts: Sequence[PackedWeights]) -> PackedWeights:
        """Return the weights of several products of the same inputs as those of one. The outputs of
        all but the last part fill whole blocks.
        """
        first = parts[0]
        return cls(
            torch.cat([part.weights for part in parts]),
            None if first.scales is None else torch.cat([part.scales for part in parts]),  # type: ignore[misc]
            None if first.least is None else torch.cat([part.least for part in parts]),  # type: ignore[misc]
            sum(part.outputs for part in parts),
            first.inputs,
            first.format,
        )

    def split(self, outputs: Sequence[int]) -> Iterator[PackedWeights]:
        """Yield the parts with these numbers of outputs, which share this one's memory. The outputs
        of all but the last part fill whole blocks.
        """
        lanes, start = self.weights.shape[-1], 0
        for count in outputs:
            end = start + -(-count // lanes)
            yield PackedWeights(
                self.weights[start:end],
                None if self.scales is None else self.scales[start:end],
                None if self.least is None else self.least[start:end],
                count,
                self.inputs,
                self.format,
            )
            start = end


def _words(integers: Tensor, weight_format: WeightFormat) -> Tensor:
    """Return [outputs, words] the integers as the library reads them: in 8 bits pairs of inputs;
    in 4 bits eight inputs, of which the first four are the lower halves of a word's bytes.
    """
    if weight_format == "int8":
        return integers.contiguous().view(torch.int16)
    # Four at once: none of them is above 15, so that no bit is shifted into another one's byte.
    fours = integers.contiguous().view(torch.int32).view(len(integers), -1, 2)
    return fours[:, :, 0] | fours[:, :, 1] << 4


def _blocks(rows: Tensor) -> Tensor:
    """Return rows [outputs, n] in blocks [blocks, n, lanes], the last one filled up with 0. The
    lanes, the outputs of a block, are a property of the processor.
    """
    library = native_library()
    lanes = library.nfox_lanes()
    missing = -len(rows) % lanes
    rows = functional.pad(rows, (0, 0, 0, missing)) if missing else rows.contiguous()
    count, width = len(rows) // lanes, rows.shape[1]
    if rows.dtype != torch.int32:
        return rows.reshape(count, lanes, width).transpose(1, 2).contiguous()
    blocks = rows.new_empty(count, width, lanes)
    addresses = c_void_p(rows.data_ptr()), c_void_p(blocks.data_ptr())
    library.nfox_pack(addresses[0], count, width, addresses[1], thread_count())
    return blocks
