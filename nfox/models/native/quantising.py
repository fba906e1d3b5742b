"""Weights of 8 or 4 bits: what they stand for, and the nearest ones to others.

Every 32 inputs of an output are a group with a scale of its own. In 8 bits a weight is
scale * integer; in 4 bits it is scale * integer + least, because 16 numbers are too few to spend
half of them on a sign that a group may not have. Scales and least numbers are in half precision, as
in GGUF's Q8_0, Q4_0 and Q4_1, whose weights are kept as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

WeightFormat = Literal["bfloat16", "int8", "int4"]

GROUP = 32
"""The inputs of an output that have one scale."""

_LEAST_SCALE = 2**-18  # has 6 bits in half precision
_CHUNK = 2**18  # weights that are quantised at once, few enough for the caches
_REFINEMENTS = 2  # of the scales and least numbers of a chunk, by least squares


@dataclass(frozen=True)
class Quantised:
    """Weights W [outputs, inputs] in groups of 32 inputs.

    Args:
        integers: [outputs, inputs], uint8 from 0 to 15, or int8.
        scales: [outputs, inputs / 32], float16.
        least: likewise, beside uint8; None beside int8.
    """

    integers: Tensor
    scales: Tensor
    least: Tensor | None

    @property
    def format(self) -> WeightFormat:
        """The form in which the native library has them."""
        return "int8" if self.least is None else "int4"

    @classmethod
    def joined(cls, parts: Sequence[Quantised]) -> Quantised:
        """Return the weights of several parts, one below the other."""
        integers, scales, least = (
            [getattr(part, field.name) for part in parts] for field in fields(cls)
        )
        return cls(
            torch.cat(integers), torch.cat(scales), None if least[0] is None else torch.cat(least)
        )

    def rearranged(self, rearrange: Callable[[Tensor], Tensor]) -> Quantised:
        """Return the weights with rows in the order that a function puts them in."""
        least = None if self.least is None else rearrange(self.least)
        return Quantised(rearrange(self.integers), rearrange(self.scales), least)

    def dequantised(self) -> Tensor:
        """Return the weights [outputs, inputs] that these stand for, float64 and exact."""
        integers = self.integers.double().reshape(len(self.integers), -1, GROUP)
        grouped = integers * self.scales.double()[..., None]
        if self.least is not None:
            grouped = grouped + self.least.double()[..., None]
        return grouped.flatten(1)


def quantise(weight: Tensor, weight_format: WeightFormat) -> Quantised:
    """Return the nearest weights to W [outputs, inputs] in 8 or 4 bits.

    The integers are chosen for scales and least numbers that are rounded to half precision already.
    """
    rows = max(1, _CHUNK // weight.shape[1])
    quantise_chunk = _in_4_bits if weight_format == "int4" else _in_8_bits
    grouped = weight.reshape(len(weight), -1, GROUP)
    chunks = (quantise_chunk(chunk.float()) for chunk in torch.split(grouped, rows))
    return Quantised.joined(
        [Quantised(integers.flatten(1), scales, least) for integers, scales, least in chunks]
    )


def _in_8_bits(groups: Tensor) -> tuple[Tensor, Tensor, None]:
    """Return the integers, scales and no least numbers of groups [outputs, groups, 32]."""
    scales = _in_half_precision(groups.abs().amax(-1) / 127)
    return _rounded(groups, scales, None, -127, 127).to(torch.int8), scales, None


def _in_4_bits(groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the integers, scales and least numbers of groups [outputs, groups, 32].

    The range of a group is a first guess. The line through its weights over their integers is a
    better one, where the weights are nearer to it than to the guess.
    """
    low, high = groups.aminmax(dim=-1)
    scales, least = _in_half_precision((high - low) / 15), _in_half_precision(low)
    integers = _rounded(groups, scales, least, 0, 15)
    error = _squared_error(groups, integers, scales, least)
    mean = groups.mean(-1, keepdim=True)
    for _ in range(_REFINEMENTS):
        centred = integers - integers.mean(-1, keepdim=True)
        slope = (centred * groups).sum(-1) / centred.square().sum(-1).clamp_min(1e-9)
        offset = mean[..., 0] - slope * integers.mean(-1)
        other_scales, other_least = map(_in_half_precision, (slope, offset))
        others = _rounded(groups, other_scales, other_least, 0, 15)
        other_error = _squared_error(groups, others, other_scales, other_least)
        better = other_error < error
        scales, least = scales.where(~better, other_scales), least.where(~better, other_least)
        integers = torch.where(better[..., None], others, integers)
        error = torch.minimum(error, other_error)
    return integers.to(torch.uint8), scales, least


def has_room_for_scales(weight: Tensor) -> bool:
    """Return whether half precision has scales for the groups of a matrix [outputs, inputs]. Where
    all weights are tiny they would have few bits, or be 0.
    """
    return bool(weight.detach().abs().amax() >= 127 * _LEAST_SCALE)


def _in_half_precision(numbers: Tensor) -> Tensor:
    """Return the nearest numbers in half precision; finite ones stay so."""
    most = torch.finfo(torch.float16).max
    return numbers.clamp(-most, most).where(numbers.isfinite(), numbers).half()


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
