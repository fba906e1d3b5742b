"""Which tokens each node of a tree may attend to, and at which positions the nodes stand."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from nfox.decoding.tree import TokenTree, ancestor_mask


class Mask(NamedTuple):
    """An additive attention mask, and the positions that it was made for.

    Args:
        additive: [B, N, K] 0 where a token may attend to a key, the dtype's least number elsewhere.
        positions: [B, N] of the tokens that attend.
        key_positions: [B, K] of the tokens that are attended to.
    """

    additive: Tensor
    positions: Tensor
    key_positions: Tensor


@lru_cache(maxsize=1024)
def _between_nodes(parents: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return [N, N] the additive mask between the nodes of a tree."""
    mask = torch.zeros(len(parents), len(parents), dtype=dtype)
    return mask.masked_fill(~ancestor_mask(parents), torch.finfo(dtype).min)


def tree_mask(tree: TokenTree, past_length: int, dtype: torch.dtype) -> Mask:
    """Return the mask of a tree after a past: a node attends to all of the past, to its ancestors
    and to itself, and stands as many positions behind the past as it is deep (Medusa, Cai et al.
    2024, section 2.1).

    Args:
        tree: N nodes.
        past_length: how many tokens were read before; K is N more.
        dtype: of the mask.
    """
    positions = past_length + torch.tensor(tree.depths)
    additive = torch.zeros(len(tree), past_length + len(tree), dtype=dtype)
    additive[:, past_length:] = _between_nodes(tree.parents, dtype)
    key_positions = torch.cat([torch.arange(past_length), positions])
    return Mask(additive[None], positions[None], key_positions[None])


def within_window(mask: Mask, window: int) -> Tensor:
    """Return [B, N, K] the additive mask of layers that see only the last `window` positions."""
    distance = mask.positions[:, :, None] - mask.key_positions[:, None, :]
    return mask.additive.masked_fill(distance >= window, torch.finfo(mask.additive.dtype).min)
