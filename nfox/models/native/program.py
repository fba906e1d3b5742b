"""Programs of the native library: what heads compute in a step, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import Array, Structure, addressof, c_float, c_int32, c_void_p
from typing import Any

import torch
from torch import Tensor

from nfox.models.native import structures
from nfox.models.native.library import native_library, thread_count
from nfox.models.native.product import NativeProduct
from nfox.models.unsupported import UnsupportedError

_EMBED, _NORM, _LINEAR, _ADD, _FORWARD, _UNEMBED, _TOP = range(7)
"""The numbers of operations in the library."""

_SILU, _NO_ACTIVATION = 0, -1


class Program:
    """Operations on rows of numbers, one after the other.

    A tensor has one row for each that the program is run for, or, where `rows` is given, so many.
    All are bfloat16 and on the CPU but where something else is said, and their last dimension is
    contiguous; the program keeps them alive.

    Raises:
        NativeLibraryError: if there is no native library.
    """

    def __init__(self) -> None:
        self._library = native_library()
        self._operations: list[structures.Operation] = []
        self._compiled: object = None
        self._kept: list[object] = []  # whose memory the library reads and writes

    def embed(
        self, embedding: Tensor, tokens: Array[c_int32], result: Tensor, rows: int = 0
    ) -> None:
        """Write the embeddings of tokens side by side.

        Args:
            embedding: [V, D].
            tokens: of N * C numbers.
            result: [N, C * D].
            rows: N where it is always the same.
        """
        self._add(
            _EMBED,
            rows=rows,
            weights=self._address(embedding),
            given=self._structure(tokens),
            result=self._address(result),
            width=embedding.shape[1],
            count=result.shape[1] // embedding.shape[1],
        )

    def norm(
        self, weight: Tensor, eps: float, given: Tensor, result: Tensor, rows: int = 0
    ) -> None:
        """Write given rows [N, D], divided by their root mean square and times a weight.

        Args:
            weight: [D] float32.
            eps: is added to the mean square.
            given: [N, D].
            result: [N, D].
            rows: N where it is always the same.

        Raises:
            UnsupportedError: if D is no multiple of what the library computes with at once.
        """
        _check_width(len(weight))
        norm = structures.Norm(weight=self._address(weight), eps=eps, width=len(weight))
        self._add(
            _NORM,
            rows=rows,
            weights=self._structure(norm),
            given=self._address(given),
            result=self._address(result),
        )

    def linear(
        self,
        product: NativeProduct,
        given: Tensor,
        result: Tensor,
        *,
        residual: Tensor | None = None,
        silu: bool = False,
        rows: int = 0,
    ) -> None:
        """Write the product of given rows, SiLU of it where asked for, plus the residual.

        Args:
            product: with weights [outputs, inputs].
            given: [N, inputs].
            result: [N, outputs].
            residual: [N, outputs]; None for none.
            silu: whether SiLU is taken.
            rows: N where it is always the same.
        """
        self._kept.append(product)
        self._add(
            _LINEAR,
            rows=rows,
            activation=_SILU if silu else _NO_ACTIVATION,
            weights=self._structure(product.matrix),
            given=self._address(given),
            added=None if residual is None else self._address(residual),
            result=self._address(result),
        )

    def add(self, given: Tensor, added: Tensor | None, result: Tensor) -> None:
        """Write given rows [N, D] plus those that are added; None for nothing. A tensor of one row
        stands for N of them.

        Raises:
            UnsupportedError: if D is no multiple of what the library computes with at once.
        """
        _check_width(result.shape[-1])
        self._add(
            _ADD,
            width=result.shape[-1],
            given=self._address(given),
            given_stride=_stride(given),
            added=None if added is None else self._address(added),
            added_stride=0 if added is None else _stride(added),
            result=self._address(result),
            result_stride=_stride(result),
        )

    def forward(self, decoder: structures.Decoder, batch: structures.Batch) -> None:
        """Run a forward, about what its batch says when the program is run."""
        self._add(_FORWARD, weights=self._structure(decoder), given=self._structure(batch))

    def top(
        self,
        products: Sequence[NativeProduct],
        given: Tensor,
        tokens: Array[c_int32],
        chances: Array[c_float],
        noise: c_void_p,
    ) -> None:
        """Write the likeliest columns of logits, the likeliest first, and how likely each is.

        Args:
            products: what makes logits of the given rows; those of several stand side by side.
            given: [M, inputs], where M is N at most.
            tokens: of M * C numbers.
            chances: likewise.
            noise: the address of what is added to the logits of every row when the program is run,
                a number for each column; null for nothing.
        """
        logits = self._unembed(products, given)
        self._add(
            _TOP,
            width=logits.shape[1],
            count=len(tokens) // len(given),
            given=self._address(logits),
            added=self._structure(noise),
            result=self._structure(tokens),
            chances=self._structure(chances),
        )

    def _unembed(self, products: Sequence[NativeProduct], given: Tensor) -> Tensor:
        """Write the products side by side; return where."""
        logits, end = torch.empty(len(given), sum(product.outputs for product in products)), 0
        for product in products:
            self._kept.append(product)
            self._add(
                _UNEMBED,
                weights=self._structure(product.matrix),
                given=self._address(given),
                result=self._address(logits[:, end:]),
                result_stride=logits.shape[1],
            )
            end += product.outputs
        return logits

    def run(self, rows: int) -> None:
        """Run the operations for so many rows."""
        if self._compiled is None:
            self._compiled = (structures.Operation * len(self._operations))(*self._operations)
        count, threads = len(self._operations), thread_count()
        self._library.nfox_run(self._compiled, count, rows, threads)

    def _add(self, kind: int, **fields: int | None) -> None:
        self._operations.append(structures.Operation(kind=kind, **fields))

    def _address(self, tensor: Tensor) -> int:
        self._kept.append(tensor)
        return tensor.data_ptr()

    def _structure(self, structure: Structure | Array[Any] | c_void_p) -> int:
        self._kept.append(structure)
        return addressof(structure)


def _check_width(width: int) -> None:
    if width % structures.MOST_LANES:
        raise UnsupportedError(f"rows of {width} numbers")


def _stride(tensor: Tensor) -> int:
    """Return the numbers from row to row; 0 where there is one row only."""
    return tensor.stride(0) if len(tensor) > 1 else 0
