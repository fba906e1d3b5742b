"""The decoder layer of heads by the native library, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import addressof, byref, c_int32, c_void_p, pointer, sizeof

import torch
from torch import Tensor

from nfox.decoding.cache import with_capacity
from nfox.heads.attention import DecoderLayer, Norm
from nfox.models.native import structures
from nfox.models.native.library import native_library, thread_count
from nfox.models.native.product import as_native, halves
from nfox.models.packed_layers import PackedNorm, native_product


class NativeLayer:
    """A layer with what it remembers of one conversation, as `LayerCache` has it.

    Args:
        layer: its linear layers are packed.
        norm: of what leaves it; None for none.

    Attributes:
        decoder: the layer as the library takes it; this object keeps its memory.
        batch: what the next forward of `decoder` is about; likewise.

    Raises:
        UnsupportedError: if they are not packed for the native library, or of other sizes.
    """

    def __init__(self, layer: DecoderLayer, norm: Norm | PackedNorm | None = None) -> None:
        linears = (layer.qkv, layer.out, layer.gate_up, layer.down)
        qkv, out, gate_up, down = map(native_product, linears)
        hidden_size, head_dim = down.outputs, 2 * layer.pairs
        structures.check_sizes(hidden_size, down.matrix.inputs, head_dim)
        self._layer, self._library = layer, native_library()
        self._norms: list[Tensor] = []  # whose memory the library reads
        self._products = {"qkv": qkv, "out": out, "down": down}  # likewise
        self._products["gate"], self._products["up"] = map(as_native, halves(gate_up))
        self.decoder = structures.Decoder(
            layers=pointer(
                structures.Layer(
                    attention=self._norm_of(layer.input_norm),
                    mlp=self._norm_of(layer.mlp_norm),
                    **{name: product.matrix for name, product in self._products.items()},
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
        self._sequence = structures.Sequence()
        self.batch = structures.Batch(pointer(self._sequence), 1)
        # [2, heads, capacity, head_dim] keys and values.
        self._keys_values = layer.qkv.weight.new_empty(2, layer.num_heads, 0, head_dim)
        self._rotations = torch.empty(2, 0, head_dim)  # cosines and sines of all positions

    def _norm_of(self, norm: Norm | PackedNorm | None) -> structures.Norm:
        if norm is None:
            return structures.Norm()
        weight = norm.weight.detach().float().contiguous()
        self._norms.append(weight)
        return structures.Norm(weight=weight.data_ptr(), eps=norm.eps or 0.0, width=len(weight))

    def read(self, states: Tensor, start: int) -> None:
        """Remember states [R, D] at positions from `start` on."""
        self._run(states, None, start)

    def attend(
        self,
        rows: Tensor,
        start: int,
        parents: Sequence[int] | None = None,
        num_joint: int = 0,
    ) -> Tensor:
        """Return what leaves the layer; arguments are those of `LayerCache.attend`."""
        hidden = torch.empty_like(rows, memory_format=torch.contiguous_format)
        self._run(rows, hidden.data_ptr(), start, parents, num_joint)
        return hidden

    def _run(
        self,
        rows: Tensor,
        hidden: int | None,
        start: int,
        parents: Sequence[int] | None = None,
        num_joint: int = 0,
    ) -> None:
        """Run a forward; arguments are those of `fill`."""
        rows = rows.contiguous()
        self.fill(rows, range(len(rows)), hidden, start, parents, num_joint)
        self._library.nfox_forward(byref(self.decoder), byref(self.batch), thread_count())

    def fill(
        self,
        table: Tensor,
        chosen: Sequence[int],
        hidden: int | None,
        start: int,
        parents: Sequence[int] | None = None,
        num_joint: int = 0,
    ) -> None:
        """Write into `batch` what a forward is about.

        Args:
            table: [M, D] the rows that enter are some of these.
            chosen: which ones, R of them.
            hidden: the address of the rows [R, D] that will be written; None where keys and values
                are all that is wanted.
            start, parents, num_joint: of these rows, as in `LayerCache.attend`.
        """
        count = len(chosen)
        self._make_room(start + count)
        numbers = (c_int32 * (2 * count))(*chosen, *(parents or range(-1, count - 1)))
        self.decoder.embedding, self.batch.hidden = table.data_ptr(), hidden
        sequence = self._sequence
        sequence.num_nodes, sequence.past_length, sequence.num_joint = count, start, num_joint
        sequence.tokens = addressof(numbers)
        sequence.parents = sequence.tokens + count * sizeof(c_int32)
        # Asked anew each time: kept ones would be wrong after an interrupt behind either.
        places = (c_void_p * 2)(*_halves_of(self._keys_values))
        sequence.keys = addressof(places)
        sequence.values = sequence.keys + sizeof(c_void_p)
        sequence.capacity = self._keys_values.shape[2]
        sequence.cosines[0], sequence.sines[0] = _halves_of(self._rotations)
        sequence.rotary_widths[0] = self._rotations.shape[2]
        sequence.kept = numbers, places  # which it points to

    def _make_room(self, length: int) -> None:
        """Have rotations, and room for keys and values, of so many positions or more."""
        if self._rotations.shape[1] < length:
            cosines, sines = self._layer.rotary(length).float()
            halves = [torch.cat([cosines, cosines], -1), torch.cat([-sines, sines], -1)]
            self._rotations = torch.stack(halves)
        if self._keys_values.shape[2] < length:
            self._keys_values = with_capacity(self._keys_values, self._keys_values, length, 2)


def _halves_of(parts: Tensor) -> tuple[int, int]:
    """Return where both parts of a contiguous tensor [2, ...] lie in memory."""
    return parts.data_ptr(), parts.data_ptr() + parts.nbytes // 2
