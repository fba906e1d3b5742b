"""Texts with branches: a text and other continuations of its prefixes, read in one forward pass.

A branch shares a prefix with the text, the trunk, and is computed only from where it differs, as in
tree attention. The states of a Jacobi iteration differ in a few tokens at the end of a long text.
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
class BranchedText:
    """A text, the trunk, with its branches. Each token that is computed is a node.

    Args:
        trunk: the token ids of the text.

    Attributes:
        ids: the token ids of all nodes, the trunk's first.
        branch: the number of the branch that each node is in, 0 for the trunk.
        prefix_length: the number of trunk tokens before the branch that each node is in.
    """

    trunk: Sequence[int]
    ids: list[int] = field(init=False)
    branch: list[int] = field(init=False)
    prefix_length: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.ids = list(self.trunk)
        self.branch = [0] * len(self.trunk)
        self.prefix_length = [0] * len(self.trunk)

    def add(self, start: int, tokens: Sequence[int]) -> list[int]:
        """Add a branch, and return the nodes whose next-token predictions are for its tokens.

        Args:
            start: the number of trunk tokens that the branch continues, at least one.
            tokens: the token ids of the continuation, which may begin like the trunk's.

        Returns:
            One node for each of `tokens`: the one before it.
        """
        shared = common_prefix(tokens, self.trunk[start:])
        added = tokens[shared:-1]  # the last token predicts nothing that is learned
        first = len(self.ids)
        self.ids += added
        self.branch += [max(self.branch) + 1] * len(added)
        self.prefix_length += [start + shared] * len(added)
        on_trunk = min(shared + 1, len(tokens))
        return [*range(start - 1, start - 1 + on_trunk), *range(first, first + len(added))]


@dataclass(frozen=True)
class BranchedBatch:
    """A batch of texts with branches, N nodes each.

    Args:
        ids: [B, N] token ids, padded on the right.
        branch: [B, N] the number of the branch of each node, 0 for the trunk, -1 for padding.
        prefix_length: [B, N] the number of trunk tokens before that branch.
    """

    ids: Tensor
    branch: Tensor
    prefix_length: Tensor

    @classmethod
    def of(cls, texts: Sequence[BranchedText]) -> BranchedBatch:
        """Return texts as a batch, padded to the same number of nodes."""

        def padded(sequences: list[list[int]], value: int = 0) -> Tensor:
            tensors = [torch.tensor(sequence) for sequence in sequences]
            return pad_sequence(tensors, batch_first=True, padding_value=value)

        return cls(
            padded([text.ids for text in texts]),
            padded([text.branch for text in texts], _PADDING),
            padded([text.prefix_length for text in texts]),
        )

    def positions_and_mask(self) -> tuple[Tensor, Tensor]:
        """Return [B, N] positions, and the [B, N, N] bool mask: which node attends to which."""
        nodes = torch.arange(self.ids.shape[1], device=self.ids.device)
        same_branch = self.branch[:, :, None] == self.branch[:, None, :]
        on_prefix = (self.branch == 0)[:, None, :] & (nodes < self.prefix_length[:, :, None])
        padding = (self.branch == _PADDING)[:, :, None]
        mask = (same_branch | on_prefix) & (nodes <= nodes[:, None]) & ~padding
        mask |= nodes == nodes[:, None]
        return mask.sum(-1) - 1, mask


def read(target: TransformersTarget, batch: BranchedBatch) -> Tensor:
    """Return the last hidden states [B, N, D] of all nodes, with gradients.

    Args:
        target: the model; one that takes no trees reads each branch as a text of its own.
        batch: the texts with branches.
    """
    positions, mask = batch.positions_and_mask()
    if target.proposals == "trees":
        return target.hidden_states(batch.ids, gradient=True, visible=mask, positions=positions)
    return _read_branches_apart(target, batch, mask)


def _read_branches_apart(target: TransformersTarget, batch: BranchedBatch, mask: Tensor) -> Tensor:
    """Return the last hidden states [B, N, D] of all nodes, each branch read with its prefix."""
    texts: list[Tensor] = []
    for ids, branch, visible in zip(batch.ids, batch.branch, mask, strict=True):
        states: dict[int, Tensor] = {}
        for node in reversed(range(len(ids))):
            if node not in states and branch[node] != _PADDING:  # the last node of a branch
                path = visible[node].nonzero()[:, 0]
                hidden = target.hidden_states(ids[path][None], gradient=True)[0]
                states = dict(zip(path.tolist(), hidden, strict=True)) | states
        padding = torch.zeros_like(states[0])
        texts.append(torch.stack([states.get(node, padding) for node in range(len(ids))]))
    return torch.stack(texts)
