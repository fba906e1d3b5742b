"""Quantised weights of a GGUF file as the native library multiplies them.

Several types have integers of at most 8 bits with a scale for 32 of them, as the library's own
formats do: nothing is rounded, nothing is unpacked, and a forward reads what the file holds. Other
types are rounded once more, to 8 bits, which adds some percent to the error that they have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nfox.files.gguf_header import GgufHeader
from nfox.models.gguf_weights import as_transformers, name_of, stored_bytes, unpacked_parts
from nfox.models.native.packing import PackedWeights
from nfox.models.native.product import NativeProduct
from nfox.models.native.quantising import GROUP, Quantised, WeightFormat, quantise
from nfox.models.packed_layers import PackedLinear

EMBEDDINGS = "token_embd.weight"
"""The name of the input embeddings, which are the LM head's weights too in a file without these."""

_Bytes = NDArray[np.uint8]
_Groups = tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]
"""Integers [groups, 32], scales [groups] and least numbers [groups], or None where they are 0."""

_NOT_QUANTISED = frozenset({0, 1, 24, 25, 26, 27, 28, 30})
"""The numbers in GGUF of types that are single numbers."""
_TOGETHER = (("attn_q", "attn_k", "attn_v"), ("ffn_gate", "ffn_up"))
"""Layers whose weights are joined in one product, and have one format for that."""
_GROUP_BYTES: dict[WeightFormat, int] = {"int8": 34, "int4": 20}
"""Of 32 weights in the native library's formats."""


class _Type(NamedTuple):
    """A type whose weights a format has as they are: the bytes of a block, and its groups."""

    size: int
    groups: Callable[[_Bytes], _Groups]


def packed_formats(header: GgufHeader) -> dict[str, WeightFormat]:
    """Return the formats in which the native library takes a file's quantised tensors, those of
    linear layers, by their names.
    """
    formats: dict[str, WeightFormat] = {
        name: "int4" if (tensor.type_id, "int4") in _TYPES else "int8"
        for name, tensor in header.tensors.items()
        if len(tensor.shape) == 2 and tensor.type_id not in _NOT_QUANTISED
    }
    if "output.weight" in header.tensors:
        formats.pop(EMBEDDINGS, None)
    chosen: dict[str, WeightFormat] = {}
    for name, form in formats.items():
        together = {formats.get(other) for other in _joined_with(name, header)}
        if None not in together:
            chosen[name] = form if len(together) == 1 else "int8"
    return chosen


def _joined_with(name: str, header: GgufHeader) -> list[str]:
    """Return the names of all tensors with which one is joined, itself among them."""
    layer, _, kind = name.removesuffix(".weight").rpartition(".")
    parts = next((parts for parts in _TOGETHER if kind in parts), (kind,))
    names = [f"{layer}.{part}.weight" for part in parts] if layer else [name]
    return [other for other in names if other in header.tensors]


def packed_bytes(header: GgufHeader) -> int:
    """Return the bytes that what is kept packed of a file takes in memory."""
    return sum(
        header.tensors[name].count // GROUP * _GROUP_BYTES[form]
        for name, form in packed_formats(header).items()
    )


def put_packed(model: Any, header: GgufHeader, formats: Mapping[str, WeightFormat]) -> None:
    """Put layers with a file's quantised weights in the places of a model's linear layers, which is
    used for inference only from then on.

    Args:
        model: of transformers, on the CPU in bfloat16.
        header: of its file.
        formats: of the layers' weights, by the names of the tensors, see `packed_formats`.

    Raises:
        ModelError: for a type of tensor that cannot be unpacked.
        NativeLibraryError: if there is no native library.
    """
    paths = {layer: path for path, layer in model.named_modules()}
    for name, form in formats.items():
        layer = model.get_submodule(name_of(name, header.architecture).removesuffix(".weight"))
        layer = model.get_output_embeddings() if name == EMBEDDINGS else layer
        packed = PackedWeights.of_quantised(read_packed(header, name, form, model.config))
        model.set_submodule(paths[layer], PackedLinear(layer, NativeProduct(packed, layer.bias)))


def read_packed(
    header: GgufHeader, name: str, weight_format: WeightFormat, config: Any
) -> Quantised:
    """Return the weights of a linear layer, with rows in transformers' order: as a file has them,
    or rounded, where its type is none that the format has.

    Args:
        header: of the file.
        name: of the tensor in the file.
        weight_format: of what is returned.
        config: of the model, as transformers has it.

    Raises:
        ModelError: for a type of tensor that cannot be unpacked.
    """
    tensor = header.tensors[name]
    if kind := _TYPES.get((tensor.type_id, weight_format)):
        with np.errstate(invalid="ignore", over="ignore"):  # what is no number is said later
            groups = kind.groups(np.array(stored_bytes(header, name)).reshape(-1, kind.size))
        integers, scales, least = (_rows(part, tensor.shape[0]) for part in groups)
        assert integers is not None and scales is not None
        stored = Quantised(integers, scales, least)
    else:
        parts = unpacked_parts(header, name)
        stored = Quantised.joined([quantise(part, weight_format) for part in parts])
    return stored.rearranged(lambda rows: as_transformers(rows, name, header.architecture, config))


def _rows(values: NDArray[Any] | None, outputs: int) -> Tensor | None:
    return None if values is None else torch.from_numpy(values).reshape(outputs, -1)


def _halves(blocks: _Bytes, start: int) -> NDArray[np.float16]:
    """Return the numbers in half precision at a place of every block."""
    return blocks[:, start : start + 2].copy().view(np.float16)[:, 0]


def _nibbles(packed: _Bytes) -> _Bytes:
    """Return [groups, 32] the integers of 4 bits in bytes [groups, 16], the lower halves first."""
    return np.concatenate([packed & 15, packed >> 4], 1)


def _q4_0(blocks: _Bytes) -> _Groups:
    scales = _halves(blocks, 0)
    return _nibbles(blocks[:, 2:]), scales, scales * np.float16(-8)


def _q4_0_in_8_bits(blocks: _Bytes) -> _Groups:
    return _nibbles(blocks[:, 2:]).astype(np.int8) - np.int8(8), _halves(blocks, 0), None


def _q4_1(blocks: _Bytes) -> _Groups:
    return _nibbles(blocks[:, 4:]), _halves(blocks, 0), _halves(blocks, 2)


def _q5_0(blocks: _Bytes) -> _Groups:
    fifth = np.unpackbits(blocks[:, 2:6], axis=1, bitorder="little") << 4
    return (_nibbles(blocks[:, 6:]) | fifth).astype(np.int8) - np.int8(16), _halves(blocks, 0), None


def _q8_0(blocks: _Bytes) -> _Groups:
    return blocks[:, 2:].view(np.int8), _halves(blocks, 0), None


def _iq4_nl(blocks: _Bytes) -> _Groups:
    from gguf.quants import IQ4_NL

    return np.array(IQ4_NL.kvalues, np.int8)[_nibbles(blocks[:, 2:])], _halves(blocks, 0), None


def _q4_k(blocks: _Bytes) -> _Groups:
    """Of 256 numbers in 8 groups; products of a block's and a group's scale are rounded to half
    precision, which changes a weight less than bfloat16 would.
    """
    packed = blocks[:, 16:].reshape(-1, 4, 32)
    integers = np.stack([packed & 15, packed >> 4], 2).reshape(-1, GROUP)
    low, middle, high = np.split(blocks[:, 4:16], 3, axis=1)
    scales = np.concatenate([low & 63, high & 15 | low >> 6 << 4], 1)
    least = np.concatenate([middle & 63, high >> 4 | middle >> 6 << 4], 1)
    of_block = (_halves(blocks, place)[:, None].astype(np.float32) for place in (0, 2))
    products = [
        (part * factor).ravel() for part, factor in zip((scales, least), of_block, strict=True)
    ]
    return integers, products[0].astype(np.float16), -products[1].astype(np.float16)


_TYPES: dict[tuple[int, WeightFormat], _Type] = {
    (2, "int4"): _Type(18, _q4_0),
    (2, "int8"): _Type(18, _q4_0_in_8_bits),
    (3, "int4"): _Type(20, _q4_1),
    (6, "int8"): _Type(22, _q5_0),
    (8, "int8"): _Type(34, _q8_0),
    (12, "int4"): _Type(144, _q4_k),
    (20, "int8"): _Type(18, _iq4_nl),
}
"""By the number that a type has in GGUF, and the format."""
