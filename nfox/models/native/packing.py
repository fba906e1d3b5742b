"""Weights as the native library multiplies with them: in bfloat16, or quantised to 8 or 4 bits.

Every 32 inputs of an output are a group with a scale of its own. In 8 bits a weight is
scale * integer; in 4 bits it is scale * integer + least, because 16 numbers are too few to spend
half of them on a sign that a group may not have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ctypes import c_void_p
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from nfox.models.native.library import native_library

WeightFormat = Literal["bfloat16", "int8", "int4"]

GROUP = 32
"""The inputs of an output that have one scale."""

_CHUNK = 2**18  # weights that are quantised at once, few enough for the caches
_REFINEMENTS = 2  # of the scales and least numbers of a chunk, by least squares


@dataclass(frozen=True)
class PackedWeights:
    """The weights W [outputs, inputs] of a product in the native library's layout.

    Args:
        weights: [blocks of outputs, words of inputs, lanes].
        scales: [blocks, inputs / 32, lanes], bfloat16; None in bfloat16.
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
    def of(cls, weight: Tensor, lanes: int, weight_format: WeightFormat) -> PackedWeights:
        """Pack a copy of W [outputs, inputs].

        Args:
            weight: W, bfloat16, on the CPU.
            lanes: the outputs of a block, a property of the processor.
            weight_format: of the copy. Quantised ones take `inputs` that are a multiple of 32.

        Raises:
            TypeError: if there are no pairs of inputs.
        """
        weight = weight.detach()
        if weight.shape[1] % 2:
            raise TypeError(f"an odd number of inputs: {weight.shape[1]}")
        if weight_format == "bfloat16":
            pairs = weight.contiguous().view(torch.int32)
            return cls(
                _blocks(pairs, lanes), None, None, len(weight), weight.shape[1], weight_format
            )
        quantised = quantise(weight, weight_format)
        least = quantised.least
        return cls(
            _blocks(_words(quantised.integers, weight_format), lanes),
            _blocks(quantised.scales, lanes),
            None if least is None else _blocks(least, lanes),
            len(weight),
            weight.shape[1],
            weight_format,
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


@dataclass(frozen=True)
class Quantised:
    """Weights W [outputs, inputs] in groups of 32 inputs.

    Args:
        integers: [outputs, inputs], uint8 from 0 to 15, or int8.
        scales: [outputs, inputs / 32], bfloat16.
        least: likewise; None where it is 0.
    """

    integers: Tensor
    scales: Tensor
    least: Tensor | None

    def dequantised(self) -> Tensor:
        """Return the weights [outputs, inputs] that these stand for, float64 and exact."""
        integers = self.integers.double().reshape(len(self.integers), -1, GROUP)
        grouped = integers * self.scales.double()[..., None]
        if self.least is not None:
            grouped = grouped + self.least.double()[..., None]
        return grouped.flatten(1)


def quantise(weight: Tensor, weight_format: WeightFormat) -> Quantised:
    """Return the nearest weights to W [outputs, inputs] in 8 or 4 bits.

    The integers are chosen for scales and least numbers that are rounded to bfloat16 already.
    """
    rows = max(1, _CHUNK // weight.shape[1])
    quantise_chunk = _in_4_bits if weight_format == "int4" else _in_8_bits
    grouped = weight.reshape(len(weight), -1, GROUP)
    chunks = [quantise_chunk(chunk.float()) for chunk in torch.split(grouped, rows)]
    integers, scales, least = zip(*chunks, strict=True)
    return Quantised(
        torch.cat(integers).flatten(1),
        torch.cat(scales),
        torch.cat(least) if weight_format == "int4" else None,
    )


def _in_8_bits(groups: Tensor) -> tuple[Tensor, Tensor, None]:
    """Return the integers, scales and no least numbers of groups [outputs, groups, 32]."""
    scales = (groups.abs().amax(-1) / 127).bfloat16()
    return _rounded(groups, scales, None, -127, 127).to(torch.int8), scales, None


def _in_4_bits(groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the integers, scales and least numbers of groups [outputs, groups, 32].

    The range of a group is a first guess. The line through its weights over their integers is a
    better one, where the weights are nearer to it than to the guess.
    """
    low, high = groups.aminmax(dim=-1)
    scales, least = ((high - low) / 15).bfloat16(), low.bfloat16()
    integers = _rounded(groups, scales, least, 0, 15)
    error = _squared_error(groups, integers, scales, least)
    mean = groups.mean(-1, keepdim=True)
    for _ in range(_REFINEMENTS):
        centred = integers - integers.mean(-1, keepdim=True)
        slope = (centred * groups).sum(-1) / centred.square().sum(-1).clamp_min(1e-9)
        offset = mean[..., 0] - slope * integers.mean(-1)
        other_scales, other_least = slope.bfloat16(), offset.bfloat16()
        others = _rounded(groups, other_scales, other_least, 0, 15)
        other_error = _squared_error(groups, others, other_scales, other_least)
        better = other_error < error
        scales, least = scales.where(~better, other_scales), least.where(~better, other_least)
        integers = torch.where(better[..., None], others, integers)
        error = torch.minimum(error, other_error)
    return integers.to(torch.uint8), scales, least


def _rounded(
    groups: Tensor, scales: Tensor, least: Tensor | None, lowest: int, highest: int
) -> Tensor:
    """Return the nearest integers, as floats; 0 where the scale is 0."""
    wide = scales.float()
    inverse = torch.where(wide == 0, 0.0, 1 / wide)[..., None]
    shifted = groups if least is None else groups - least.float()[..., None]
    return (shifted * inverse).round_().clamp_(lowest, highest)


def _squared_error(groups: Tensor, integers: Tensor, scales: Tensor, least: Tensor) -> Tensor:
    """Return [outputs, groups] the summed squares of what quantised groups are off by."""
    found = torch.addcmul(least.float()[..., None], integers, scales.float()[..., None])
    return (found - groups).square_().sum(-1)


def _words(integers: Tensor, weight_format: WeightFormat) -> Tensor:
    """Return [outputs, words] the integers as the library reads them: in 8 bits pairs of inputs;
    in 4 bits the even inputs of four pairs in the lower half of a word, the odd ones in the upper.
    """
    if weight_format == "int8":
        return integers.contiguous().view(torch.int16)
    halves = integers.reshape(len(integers), -1, 4, 2).transpose(2, 3)  # [outputs, words, 2, 4]
    nibbles = halves.reshape(len(integers), -1, 2)
    return (nibbles[..., 0] | nibbles[..., 1] << 4).view(torch.int32)


def _blocks(rows: Tensor, lanes: int) -> Tensor:
    """Return rows [outputs, n] in blocks [blocks, n, lanes], the last one filled up with 0."""
    missing = -len(rows) % lanes
    rows = functional.pad(rows, (0, 0, 0, missing)) if missing else rows.contiguous()
    count, width = len(rows) // lanes, rows.shape[1]
    if rows.dtype != torch.int32:
        return rows.reshape(count, lanes, width).transpose(1, 2).contiguous()
    blocks = rows.new_empty(count, width, lanes)
    addresses = c_void_p(rows.data_ptr()), c_void_p(blocks.data_ptr())
    native_library().nfox_pack(addresses[0], count, width, addresses[1], torch.get_num_threads())
    return blocks
