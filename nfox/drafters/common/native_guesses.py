"""What heads guess by programs of the native library."""

from __future__ import annotations

from ctypes import c_float, c_int32, c_void_p
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nfox.decoding.verify import Noise
from nfox.drafters.common.guesses import MAX_WIDTH, Guesses
from nfox.models.native.product import NativeProduct
from nfox.models.native.program import Program
from nfox.models.native.vocabulary import native_parts
from nfox.models.unsupported import UnsupportedError

if TYPE_CHECKING:
    from nfox.drafters.common.heads import HeadsDrafter


class NativeGuesses:
    """Reads the likeliest tokens off rows of states, as programs of the native library leave them.

    Args:
        drafter: whose heads make these states.
        num_rows: the most of them.
        others: products whose columns stand behind those of the vocabulary.

    Attributes:
        embedding: [V, D] of the target.
        size: the columns of the logits.

    Raises:
        UnsupportedError: if the native library does not compute the logits of these heads.
    """

    def __init__(self, drafter: HeadsDrafter, num_rows: int, *others: NativeProduct) -> None:
        self.vocabulary = drafter.vocabulary
        parts = native_parts(self.vocabulary)
        if parts is None or drafter.heads.has_own_vocabulary:
            raise UnsupportedError("logits that are not the native library's")
        self.embedding, unembedding = parts
        self._products = (unembedding, *others)
        self.size = sum(product.outputs for product in self._products)
        self._width = min(MAX_WIDTH + len(others), self.size)
        self._noise, self._noise_row = c_void_p(), np.empty(0, np.float32)
        self._columns = (c_int32 * (num_rows * self._width))()
        self._chances = (c_float * len(self._columns))()

    def add_top(self, program: Program, states: Tensor) -> None:
        """Let a program read the likeliest columns off states [num_rows, D]."""
        program.top(self._products, states, self._columns, self._chances, self._noise)

    def draw_by(self, noise: Noise | None) -> None:
        """Let programs read off the columns that the target is likely to draw.

        Args:
            noise: what its tokens will be drawn by; None for the likeliest columns.
        """
        if noise is None:
            self._noise.value = None
            return
        row = noise.in_logits(self.vocabulary.all_token_ids(self.size))
        if len(row) != self.size:
            raise ValueError(f"noise for {len(row)} of {self.size} columns")
        self._noise_row = row  # the library reads it later
        self._noise.value = row.ctypes.data

    def columns(self, count: int, width: int) -> tuple[list[list[int]], list[list[float]]]:
        """Return the likeliest columns [count][width] of the first rows, and how likely each is."""
        starts = range(0, count * self._width, self._width)
        places = [slice(start, start + min(width, self._width)) for start in starts]
        return [self._columns[place] for place in places], [self._chances[p] for p in places]

    def guesses(self, count: int, width: int) -> Guesses:
        """Return the `width` likeliest tokens of each of the first rows; MAX_WIDTH at most."""
        columns, chances = self.columns(count, width)
        return Guesses([self.vocabulary.token_ids(row) for row in columns], chances)


def rows_of(count: int, width: int) -> Tensor:
    """Return [count, width] in which a program keeps numbers."""
    return torch.zeros(count, width, dtype=torch.bfloat16)
