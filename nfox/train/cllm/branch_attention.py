"""A text and others that leave it somewhere, read in one forward.

Each of the others shares what it has in common with the text, and is read from where it differs:
the states of a Jacobi iteration differ in a few tokens at the end of a long text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from nfox.decoding.cache import common_prefix
from nfox.models.transformers_target import TransformersTarget

_PADDING = -1


@dataclass
class Branches:
    """One text with its branches.

    Args:
        trunk: tokens of the text.

    Attributes:
        ids: tokens of all nodes, the trunk's first.
        owner: which branch each node is of, 0 for the trunk.
        begin: how many of the trunk's tokens each node's branch comes after.
    """

    trunk: Sequence[int]
    ids: list[int] = field(init=False)
    owner: list[int] = field(init=False)
    begin: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.ids = list(self.trunk)
        self.owner = [0] * len(self.trunk)
        self.begin = [0] * len(self.trunk)

    def add(self, start: int, tokens: Sequence[int]) -> list[int]:
        """Add a text that goes on with other tokens; return the node that foretells each of them.

        Args:
            start: it begins with so many of the trunk's tokens, at least one.
            tokens: that follow.
        """
        same = common_prefix(tokens, self.trunk[start:])
        more = tokens[same:-1]  # after the last one nothing is foretold
        first = len(self.ids)
        self.ids += more
        self.owner += [max(self.owner) + 1] * len(more)
        self.begin += [start + same] * len(more)
        shared = min(same + 1, len(tokens))
        return [*range(start - 1, start - 1 + shared), *range(first, first + len(more))]


@dataclass(frozen=True)
class Woven:
    """A batch of texts with branches.

    Args:
        ids: [B, N] tokens, padded on the right.
        owner: [B, N] which branch of its text each is of, 0 for the trunk, -1 for padding.
        begin: [B, N] how many of the trunk's tokens that branch comes after.
    """

    ids: Tensor
    owner: Tensor
    begin: Tensor

    @classmethod
    def of(cls, rows: Sequence[Branches]) -> Woven:
        """Pad texts to one length."""

        def padded(lists: list[list[int]], value: int = 0) -> Tensor:
            made = [torch.tensor(one) for one in lists]
            return pad_sequence(made, batch_first=True, padding_value=value)

        owner = padded([row.owner for row in rows], _PADDING)
        return cls(padded([row.ids for row in rows]), owner, padded([row.begin for row in rows]))

    def seen(self) -> tuple[Tensor, Tensor]:
        """Return [B, N] positions, and [B, N, N] bool which node sees which."""
        count = self.ids.shape[1]
        places = torch.arange(count, device=self.ids.device)
        own = self.owner[:, :, None] == self.owner[:, None, :]
        shared = (self.owner == 0)[:, None, :] & (places < self.begin[:, :, None])
        alone = (self.owner == _PADDING)[:, :, None]
        seen = (own | shared) & (places <= places[:, None]) & ~alone
        seen |= places == places[:, None]
        return seen.sum(-1) - 1, seen


def read(target: TransformersTarget, woven: Woven) -> Tensor:
    """Return the last hidden states [B, N, D] of all nodes, with gradients.

    Args:
        target: the model.
        woven: what is read; by a model that does not take trees, branch by branch.
    """
    positions, seen = woven.seen()
    if target.proposals == "trees":
        return target.hidden_states(woven.ids, gradient=True, visible=seen, positions=positions)
    return _one_by_one(target, woven, seen)


def _one_by_one(target: TransformersTarget, woven: Woven, seen: Tensor) -> Tensor:
    """Read every branch as a text of its own."""
    states: list[Tensor] = []
    for ids, owner, visible in zip(woven.ids, woven.owner, seen, strict=True):
        made: dict[int, Tensor] = {}
        for node in reversed(range(len(ids))):
            if node not in made and owner[node] != _PADDING:  # the last of a branch
                text = visible[node].nonzero()[:, 0]
                hidden = target.hidden_states(ids[text][None], gradient=True)[0]
                made = dict(zip(text.tolist(), hidden, strict=True)) | made
        nothing = torch.zeros_like(made[0])
        states.append(torch.stack([made.get(node, nothing) for node in range(len(ids))]))
    return torch.stack(states)
