"""Jacobi trajectories as rows: an answer, and one state of each of its blocks as a branch of it.

One forward pass over a row computes the answer once for all its blocks, and every state after its
own prefix. Which states are drawn depends on the index of the row and on the epoch alone, so that
it is the same however rows are divided over processes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from typing_extensions import override

from nfox.decoding.cache import common_prefix
from nfox.heads.base import IGNORE
from nfox.train.cllm.answers import AnswerSet, StatePair
from nfox.train.cllm.branch_attention import BranchedBatch, BranchedText


class Row(NamedTuple):
    """One answer with the states that were drawn, and what is learned from them.

    P is the number of positions at which a student state learns from a teacher state, M the number
    of tokens of the autoregressive loss. Nodes are those of `text`, whose next-token predictions
    are compared.

    Args:
        text: the answer with its branches.
        student_nodes: [P] the nodes whose predictions are trained.
        teacher_nodes: [P] the nodes whose predictions they are compared with.
        fixed_point: [P] the answer's token id at each of these positions.
        block_positions: [P] the number of these positions in the same block.
        block: [P] the number of the block.
        label_nodes: [M] the nodes that predict the tokens of `labels`.
        labels: [M] the token ids of the autoregressive loss.
        block_count: the number of blocks of the answer, also of those without a state to draw.
    """

    text: BranchedText
    student_nodes: list[int]
    teacher_nodes: list[int]
    fixed_point: list[int]
    block_positions: list[int]
    block: list[int]
    label_nodes: list[int]
    labels: list[int]
    block_count: int


class TrajectoryRows(Dataset[Row]):
    """A dataset with one row for each answer, whose states are drawn anew in every epoch.

    Args:
        dataset: the answers with the states of their blocks.

    Attributes:
        block_length: the number of tokens of a block.
    """

    def __init__(self, dataset: AnswerSet) -> None:
        self.block_length = dataset.n
        self._answers = dataset.answers
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch, with which the drawn states change."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._answers)

    @override
    def __getitem__(self, index: int) -> Row:
        answer, numbers = self._answers[index], random.Random(f"{self._epoch}/{index}")
        text = BranchedText(answer.tokens)
        row = Row(text, [], [], [], [], [], [], [], len(answer.blocks))
        for number, (start, pairs) in enumerate(answer.blocks):
            if pairs:
                _add_pair(row, number, start, numbers.choice(pairs))
        labels = answer.tokens if answer.labels is None else answer.labels
        row.label_nodes.extend(text.add(1, labels[1:])[answer.question_length - 1 :])
        row.labels.extend(labels[answer.question_length :])
        return row

    @property
    def tokens(self) -> int:
        """The number of tokens of all questions and answers."""
        return sum(len(answer.tokens) for answer in self._answers)

    @property
    def block_count(self) -> int:
        """The number of blocks of all answers."""
        return sum(len(answer.blocks) for answer in self._answers)


def _add_pair(row: Row, number: int, start: int, pair: StatePair) -> None:
    """Add the states of a block to a row; learned are the positions from their first difference on.

    Args:
        row: the row.
        number: the number of the block in its answer.
        start: the position of the block's first token.
        pair: the states.
    """
    shared, length = common_prefix(*pair), len(pair.student)
    row.student_nodes.extend(row.text.add(start, pair.student)[shared:])
    row.teacher_nodes.extend(row.text.add(start, pair.teacher)[shared:])
    row.fixed_point.extend(row.text.trunk[start + shared : start + length])
    row.block_positions.extend([length - shared] * (length - shared))
    row.block.extend([number] * (length - shared))


def collate(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Return a batch of rows, padded on the right.

    It has the fields of `BranchedBatch` [B, N], its ids as `input_ids`, and those of `Row`, [B, P],
    [B, M] or [B], with IGNORE where nothing is learned.
    """

    def padded(name: str, value: int) -> Tensor:
        sequences = [torch.tensor(getattr(row, name), dtype=torch.long) for row in rows]
        return pad_sequence(sequences, batch_first=True, padding_value=value)

    texts = BranchedBatch.of([row.text for row in rows])
    batch: dict[str, Any] = {
        "input_ids": texts.ids,
        "branch": texts.branch,
        "prefix_length": texts.prefix_length,
        "attention_mask": (texts.branch >= 0).long(),  # the Trainer counts tokens by it
        "block_positions": padded("block_positions", 1),
        "block_count": torch.tensor([row.block_count for row in rows]),
    }
    for name in ("student_nodes", "teacher_nodes", "label_nodes"):
        batch[name] = padded(name, 0)
    for name in ("fixed_point", "labels", "block"):
        batch[name] = padded(name, IGNORE)
    return batch
