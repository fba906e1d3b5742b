"""The decoder layer of heads by the native library, in one call."""

from __future__ import annotations

from ctypes import addressof, byref, c_int32, c_void_p, pointer, sizeof

import torch
from torch import Tensor

from nfox.decoding.cache import with_capacity
from nfox.heads.attention import DecoderLayer, Norm
from nfox.models.native import structures
from nfox.models.native.library import native_library
from nfox.models.native.product import NativeProduct
from nfox.models.packed_layers import PackedLinear, PackedNorm


class NativeLayer:
    """A layer with what it remembers of one conversation, as `LayerCache` has it.

    Args:
        layer: its linear layers are packed.
        norm: of what leaves it; None for none.

    Raises:
        TypeError: if they are not packed for the native library, or of other sizes.
    """

    def __init__(self, layer: DecoderLayer, norm: Norm | PackedNorm | None = None) -> None:
        qkv, out, gate_up, down = map(_matrix_of, (layer.qkv, layer.out, layer.gate_up, layer.down))
        hidden_size, head_dim = down.outputs, 2 * layer.pairs
        if any(size % structures.MOST_LANES for size in (hidden_size, down.inputs, head_dim)):
            raise TypeError(f"sizes of {hidden_size}, {down.inputs} and {head_dim}")
        self._layer, self._library = layer, native_library()
        self._norms: list[Tensor] = []  # whose memory the library reads
        gate, up = _halves(gate_up)
        self._decoder = structures.Decoder(
            layers=pointer(
                structures.Layer(
                    attention=self._norm_of(layer.input_norm),
                    mlp=self._norm_of(layer.mlp_norm),
                    **{"qkv": qkv, "out": out, "gate": gate, "up": up, "down": down},
                    residual_scale=1.0,
                    scale=head_dim**-0.5,
                    rotates=True,
                )
            ),
            num_layers=1,
            hidden_size=hidden_size,
            num_heads=layer.num_heads,
            num_key_heads=layer.num_heads,
            head_dim=head_dim,
            embedding_scale=1.0,
            norm=self._norm_of(norm),
        )
        self._like = layer.qkv.weight.new_empty(2, layer.num_heads, 0, head_dim)
        self._keys_values: Tensor | None = None  # [2, heads, capacity, head_dim]
        self._rotations = torch.empty(2, 0, head_dim)  # cosines and sines of all positions
        self._numbers = (c_int32 * 0)()  # -1, 0, 1, ...

    def _norm_of(self, norm: Norm | PackedNorm | None) -> structures.Norm:
        if norm is None:
            return structures.Norm()
        weight = norm.weight.detach().float().contiguous()
        self._norms.append(weight)
        return structures.Norm(weight=weight.data_ptr(), eps=norm.eps or 0.0, width=len(weight))

    def read(self, states: Tensor, start: int) -> None:
        """Remember states [R, D] at positions from `start` on."""
        self._run(states, start, 0)

    def attend(self, states: Tensor, queries: Tensor, start: int) -> Tensor:
        """Return [A, D] what leaves the layer for queries [A, D], which see the past, the states
        [R, D] at position `start` and after it, and each other.
        """
        left = self._run(torch.cat([states, queries]), start, len(queries))
        return left[len(states) :]

    def _run(self, states: Tensor, start: int, num_joint: int) -> Tensor:
        """Return what leaves the layer for states [N, D], the last of which see each other."""
        states, count = states.contiguous(), len(states)
        rotations, keys_values = self._room_for(start + count)
        if len(self._numbers) <= count:
            self._numbers = (c_int32 * (2 * count))(*range(-1, 2 * count - 1))
        pointers = (c_void_p * 2)(*(part.data_ptr() for part in keys_values))
        hidden = torch.empty_like(states)
        self._decoder.embedding = states.data_ptr()
        step = structures.Step(
            num_nodes=count,
            past_length=start,
            num_threads=torch.get_num_threads(),
            num_joint=num_joint,
            tokens=addressof(self._numbers) + sizeof(c_int32),
            parents=addressof(self._numbers),
            keys=addressof(pointers),
            values=addressof(pointers) + sizeof(c_void_p),
            capacity=keys_values.shape[2],
            hidden=hidden.data_ptr(),
        )
        step.cosines[0], step.sines[0] = rotations[0].data_ptr(), rotations[1].data_ptr()
        step.rotary_widths[0] = rotations.shape[2]
        self._library.nfox_forward(byref(self._decoder), byref(step), 1)
        return hidden

    def _room_for(self, length: int) -> tuple[Tensor, Tensor]:
        """Return rotations [2, T, head_dim], and keys and values [2, heads, T, head_dim], of as
        many positions or more.
        """
        if self._rotations.shape[1] < length:
            cosines, sines = self._layer.rotary(length).float()
            halves = [torch.cat([cosines, cosines], -1), torch.cat([-sines, sines], -1)]
            self._rotations = torch.stack(halves)
        self._keys_values = with_capacity(self._keys_values, self._like, length, 2)
        return self._rotations, self._keys_values


def _matrix_of(linear: torch.nn.Module) -> structures.Matrix:
    """Return the weights of a layer that is packed for the native library.

    Raises:
        TypeError: if it is not.
    """
    product = linear.product if isinstance(linear, PackedLinear) else None
    if not isinstance(product, NativeProduct):
        raise TypeError("a linear layer that is not the native library's")
    return product.matrix


def _halves(matrix: structures.Matrix) -> list[structures.Matrix]:
    """Return the first and the second half of a matrix's outputs, each of whole blocks."""
    outputs, inputs = matrix.outputs // 2, matrix.inputs
    size = outputs * inputs * torch.bfloat16.itemsize
    places = (matrix.weights, matrix.weights + size)
    return [structures.Matrix(weights=w, outputs=outputs, inputs=inputs) for w in places]
