"""What a forward takes from the positions of tokens: rotations of queries and keys, and masks."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from nfox.decoding.tree import TokenTree
from nfox.models.unsupported import UnsupportedError


class LayerInputs(NamedTuple):
    """What the layers of one kind share in one forward over N nodes.

    Args:
        cosines: [N, 1, R] of the rotations of the first R numbers of queries and keys.
        sines: likewise; the first half is negated, so that the halves of a state need only change
            places.
        mask: [rows, T] additive; None where everything is attended to.
    """

    cosines: Tensor
    sines: Tensor
    mask: Tensor | None

    def rotate(self, heads: Tensor) -> Tensor:
        """Return queries or keys [N, heads, head_dim], rotated by the nodes' positions."""
        width = self.cosines.shape[-1]
        turned, rest = heads[..., :width], heads[..., width:]
        swapped = turned.roll(width // 2, -1)
        turned = torch.addcmul(turned * self.cosines, swapped, self.sines)
        return turned if rest.shape[-1] == 0 else torch.cat([turned, rest], -1)


def rotation_limits(config: Any) -> list[int]:
    """Return the lengths of text beyond which a model's positions are rotated otherwise, those that
    it has read too: keys that are kept would not fit to what follows. LongRoPE (Ding et al. 2024,
    arXiv 2402.13753) has factors for texts up to the length of the training and for longer ones.

    Args:
        config: of the decoder.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    by_kind = rope.values() if "rope_type" not in rope else [rope]
    return [
        int(parameters["original_max_position_embeddings"])
        for parameters in by_kind
        if isinstance(parameters, dict) and parameters.get("rope_type") == "longrope"
    ]


class Rotations:
    """The rotary position embeddings of a model (Su et al. 2021), looked up by position.

    Args:
        rotary: the module of the model that computes them.
        like: a tensor of the dtype and device in which they are computed.
        dtype: in which they are kept.

    Raises:
        UnsupportedError: if they depend on the length of the text.
    """

    def __init__(self, rotary: Any, like: Tensor, dtype: torch.dtype) -> None:
        types = rotary.rope_type
        self.by_kind = isinstance(types, dict)
        if "dynamic" in (types.values() if self.by_kind else [types]):
            raise UnsupportedError("rotary positions that depend on the length of the text")
        self._longest = min([*rotation_limits(rotary.config), 1 << 30])
        self.rotary, self.like, self.dtype = rotary, like, dtype
        self._tables: dict[str, tuple[Tensor, Tensor]] = {}

    def at(self, kind: str, past_length: int, tree: TokenTree) -> tuple[Tensor, Tensor]:
        """Return the cosines and sines [N, 1, R] of the nodes of a tree after a past."""
        count = past_length + max(tree.depths) + 1
        cosines, sines = self.table(kind, count)
        if tree.is_chain:
            rows = slice(past_length, count)
            return cosines[rows, None], sines[rows, None]
        positions = past_length + torch.tensor(tree.depths, device=cosines.device)
        return cosines[positions, None], sines[positions, None]

    def table(self, kind: str, count: int) -> tuple[Tensor, Tensor]:
        """Return the cosines and sines [P, R] of the positions from 0 on, P >= count."""
        key = kind if self.by_kind else ""
        if key not in self._tables or len(self._tables[key][0]) < count:
            size = max(count, min(2 * count, self._longest))
            positions = torch.arange(size, device=self.like.device)[None]
            cosines, sines = self.rotary(self.like, positions, *filter(None, [key]))
            sines = sines[0].to(self.dtype, copy=True)
            sines[:, : sines.shape[-1] // 2] *= -1
            self._tables[key] = cosines[0].to(self.dtype).contiguous(), sines
        return self._tables[key]
