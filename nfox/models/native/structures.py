"""The structures that the native library takes, as decoder.h, matrix.h and program.h have them."""

from __future__ import annotations

from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_void_p
from typing import Any, NamedTuple

from nfox.models.unsupported import UnsupportedError

MOST_LANES = 16
"""The most numbers that the library computes with at once: sizes are multiples of it."""

MOST_HEAD_DIM = 1024
"""The numbers of a head for which a thread of the library has room."""


def check_sizes(hidden_size: int, intermediate_size: int, head_dim: int) -> None:
    """Refuse sizes of layers that the library does not compute with.

    Raises:
        UnsupportedError: if a size is no multiple of 16, or a head too wide.
    """
    sizes = (hidden_size, intermediate_size, head_dim)
    if any(size % MOST_LANES for size in sizes) or head_dim > MOST_HEAD_DIM:
        raise UnsupportedError(f"sizes of {sizes}")


class Matrix(Structure):
    """The weights of a product."""

    _fields_ = [
        *((name, c_void_p) for name in ("weights", "scales", "least", "bias")),
        *((name, c_int32) for name in ("outputs", "inputs", "format")),
    ]


class Norm(Structure):
    """A norm; one without a weight is none."""

    _fields_ = [("weight", c_void_p), ("eps", c_float), ("width", c_int32)]


class Layer(Structure):
    """What one layer computes with."""

    _fields_ = [
        *((name, Norm) for name in ("attention", "attended", "mlp", "mlp_out", "query", "key")),
        *((name, Matrix) for name in ("qkv", "out", "gate", "up", "down")),
        *((name, c_float) for name in ("residual_scale", "scale", "cap")),
        *((name, c_int32) for name in ("rotates", "kind")),
    ]


class Decoder(Structure):
    """What stays the same from forward to forward."""

    _fields_ = [
        ("layers", POINTER(Layer)),
        *((name, c_int32) for name in ("num_layers", "hidden_size", "num_heads", "num_key_heads")),
        *((name, c_int32) for name in ("head_dim", "activation")),
        ("embedding", c_void_p),
        ("embedding_scale", c_float),
        ("norm", Norm),
        ("unembedding", Matrix),
    ]


class Sequence(Structure):
    """A tree, and what was read before it. There are two kinds of layers at most, each with its own
    rotations and window.
    """

    _fields_ = [
        *((name, c_int32) for name in ("num_nodes", "past_length", "num_joint")),
        *((name, c_void_p) for name in ("tokens", "parents", "keys", "values")),
        ("capacity", c_int64),
        *((name, c_void_p * 2) for name in ("cosines", "sines")),
        *((name, c_int32 * 2) for name in ("rotary_widths", "windows")),
    ]


class Batch(Structure):
    """The sequences that go through one forward, and where what it gives is written."""

    _fields_ = [
        ("sequences", POINTER(Sequence)),
        *((name, c_int32) for name in ("num_sequences", "first_scored")),
        *((name, c_void_p) for name in ("hidden", "logits")),
    ]


class Operation(Structure):
    """One operation of a program; which numbers it takes is said in program.h."""

    _fields_ = [
        *((name, c_int32) for name in ("kind", "rows", "width", "activation", "count")),
        *((name, c_int32) for name in ("given_stride", "added_stride", "result_stride")),
        *((name, c_void_p) for name in ("weights", "given", "added", "result", "chances")),
    ]


class CacheAddresses(NamedTuple):
    """Where the keys and values of a cache lie.

    Args:
        keys: the addresses of every layer's [1, H, capacity, D].
        values: likewise.
        capacity: rows that there is room for.
        start: the address of the first key of the first layer.
    """

    keys: Any
    values: Any
    capacity: int
    start: int
