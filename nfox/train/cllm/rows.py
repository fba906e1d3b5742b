"""Jacobi trajectories as rows: an answer, and one state of each of its blocks as branches of it.

One forward over a row gives what the model says after the answer and after every state, and the
answer is read once for all its blocks. Which states are drawn depends on the row and on how often
it was learned from, so that it is the same however rows are spread.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from nfox.decoding.cache import common_prefix
from nfox.errors import UsageError
from nfox.heads.base import IGNORE
from nfox.train.cllm.branch_attention import Branches, Woven
from nfox.train.cllm.trajectories import Trajectory

Tokens = Sequence[int]


class Pair(NamedTuple):
    """Two states of a block, the second one nearer to its end."""

    state: Tokens
    better: Tokens


@dataclass
class Answer:
    """A question with its answer, up to the token that ends it.

    Args:
        asked: tokens of the question.
        tokens: of both.
        labels: the question with the dataset's own answer.
        blocks: of the answer: where each begins, and what may be drawn of it.
    """

    asked: int
    tokens: Tokens
    labels: Tokens | None
    blocks: list[tuple[int, list[Pair]]] = field(default_factory=list)


class Row(NamedTuple):
    """What is learned from an answer at once.

    Args:
        read: the answer and its branches.
        student: nodes that are to say what those of `teacher` say.
        teacher: as many.
        wanted: the answer's token at each of these places.
        span: places of the block that each is of.
        block: that each is of.
        said: nodes that are to say the tokens of `labels`.
        labels: as many.
        blocks: how many there are, also such as nothing was drawn of.
    """

    read: Branches
    student: list[int]
    teacher: list[int]
    wanted: list[int]
    span: list[int]
    block: list[int]
    said: list[int]
    labels: list[int]
    blocks: int


class States(Dataset[Row]):
    """One row for each answer.

    Args:
        found: trajectories; those of one answer become one row.
        ends: tokens that end an answer; what is behind the first one is ignored.
        max_length: tokens of question and answer at most.
        given: learn to say the dataset's own answers, not the model's.
        local: draw a state and the one after it, of the iteration itself; else any state and the
            fixed point.

    Attributes:
        left_out: trajectories whose block is behind the end of the answer, or of the maximum.
        n: tokens of a block.
        labelled: whether there are answers of the dataset's own.

    Raises:
        UsageError: if the dataset's answers are asked for and not there, or there is nothing left.
    """

    def __init__(
        self,
        found: Iterable[Trajectory],
        ends: Collection[int],
        max_length: int,
        *,
        given: bool = False,
        local: bool = False,
    ) -> None:
        self.left_out, self.n, self.labelled = 0, 0, False
        self._ends, self._most, self._given, self._local = ends, max_length, given, local
        self._epoch = 0
        answers: dict[tuple[str, tuple[int, ...]], Answer] = {}
        for one in found:
            self._take(one, answers)
        self._answers = list(answers.values())
        if not self._answers:
            raise UsageError(
                f"no trajectory begins within the first {max_length} tokens",
                "raise --model_max_length",
            )

    def _take(self, one: Trajectory, answers: dict[Any, Answer]) -> None:
        start, final = len(one.prompt), one.states[-1]
        whole = tuple(one.complete)
        if whole[: start + len(final)] != (*one.prompt, *final):
            whole = (*one.prompt, *final)
        tokens = _packed(self._ended(whole, one.asked))
        if start >= len(tokens):
            self.left_out += 1
            return
        if self._given and not (one.labels and one.labels[0] == whole[0]):
            raise UsageError(
                f"--use_gt_labels: {one.data_id} has no labels_ids that begin like its prompt_ids",
                "nfox data trajectories --use-labels writes them",
            )
        self.n = max(self.n, len(final))
        self.labelled = self.labelled or one.labels is not None
        labels = self._ended(one.labels, one.asked) if self._given and one.labels else None
        answer = answers.setdefault((one.data_id, whole), Answer(one.asked, tokens, labels))
        answer.blocks.append((start, self._pairs(one, len(tokens) - start)))

    def _ended(self, tokens: Tokens, asked: int) -> Tokens:
        """Return tokens up to the first that ends the answer."""
        places = (i for i in range(asked, len(tokens)) if tokens[i] in self._ends)
        return tokens[: min(next(places, len(tokens)) + 1, self._most)]

    def _pairs(self, one: Trajectory, length: int) -> list[Pair]:
        """Return what may be drawn of a block of so many tokens."""
        unlike = {tuple(state[:length]): _packed(state[:length]) for state in one.states}
        states = [unlike[tuple(state[:length])] for state in one.states]
        final = states[-1]
        if self._local:
            pairs = [Pair(*both) for both in pairwise(states[one.augmented :])]
        else:
            pairs = [Pair(state, final) for state in unlike.values()]
        return [pair for pair in pairs if pair.state != pair.better]

    def set_epoch(self, epoch: int) -> None:
        """Draw other states from now on; the Trainer says so."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._answers)

    def __getitem__(self, index: int) -> Row:
        answer, numbers = self._answers[index], random.Random(f"{self._epoch}/{index}")
        read = Branches(answer.tokens)
        row = Row(read, [], [], [], [], [], [], [], len(answer.blocks))
        for number, (start, pairs) in enumerate(answer.blocks):
            if pairs:
                _add(row, number, start, numbers.choice(pairs))
        labels = answer.tokens if answer.labels is None else answer.labels
        row.said.extend(read.add(1, labels[1:])[answer.asked - 1 :])
        row.labels.extend(labels[answer.asked :])
        return row

    @property
    def tokens(self) -> int:
        """How many tokens the questions and answers have."""
        return sum(len(answer.tokens) for answer in self._answers)

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return sum(len(answer.blocks) for answer in self._answers)


def _packed(tokens: Tokens) -> Tokens:
    """Return tokens in 4 bytes each: the states of a large set are many."""
    return array("i", tokens)


def _add(row: Row, number: int, start: int, pair: Pair) -> None:
    """Add a block: from where its states differ on, the first is to say what the second says."""
    differ, length = common_prefix(*pair), len(pair.state)
    row.student.extend(row.read.add(start, pair.state)[differ:])
    row.teacher.extend(row.read.add(start, pair.better)[differ:])
    row.wanted.extend(row.read.trunk[start + differ : start + length])
    row.span.extend([length - differ] * (length - differ))
    row.block.extend([number] * (length - differ))


def collate(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Return a batch: the fields of `Woven` [B, N], its ids as `input_ids`, and of `Row` [B, P],
    [B, M] and [B], padded on the right so that nothing is learned there.
    """

    def padded(name: str, value: int) -> Tensor:
        made = [torch.tensor(getattr(row, name), dtype=torch.long) for row in rows]
        return pad_sequence(made, batch_first=True, padding_value=value)

    woven = Woven.of([row.read for row in rows])
    return {
        **{"input_ids": woven.ids, "owner": woven.owner, "begin": woven.begin},
        "attention_mask": (woven.owner >= 0).long(),  # the Trainer counts tokens by it
        **{name: padded(name, 0) for name in ("student", "teacher", "said")},
        "span": padded("span", 1),
        **{name: padded(name, IGNORE) for name in ("wanted", "labels", "block")},
        "blocks": torch.tensor([row.blocks for row in rows]),
    }
