"""Jacobi trajectories put together to answers: one answer with the states of all its blocks."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from nfox.errors import UsageError
from nfox.train.cllm.trajectories import Trajectory

TokenIds = Sequence[int]


class StatePair(NamedTuple):
    """Two states of a block: the student's, and the teacher's, which is a later one."""

    student: TokenIds
    teacher: TokenIds


@dataclass
class AnswerBlocks:
    """A question with its answer, and the states of the answer's blocks.

    Args:
        question_length: the number of tokens of the question.
        tokens: the token ids of question and answer, up to the stop token.
        labels: the token ids of the question and the dataset's own answer, if that is learned.
        blocks: for each block, the position of its first token, and the pairs of states of which
            one is drawn.
    """

    question_length: int
    tokens: TokenIds
    labels: TokenIds | None
    blocks: list[tuple[int, list[StatePair]]] = field(default_factory=list)


class AnswerSet:
    """The answers of a dataset of trajectories.

    Args:
        trajectories: the trajectories; those of one answer are put together.
        stop_ids: the tokens that end an answer; what is behind the first one is ignored.
        max_length: the maximum number of tokens of question and answer.
        vocabulary_size: the number of the model's tokens.
        dataset_answers: take the dataset's own answers as labels.
        local: pair each state with the next one of the iteration, for the local consistency loss;
            else with the fixed point, for the global one.

    Attributes:
        answers: the answers.
        left_out: the number of trajectories whose block is behind the end of the answer, or behind
            `max_length`.
        n: the number of tokens of a block.
        has_labels: whether the trajectories have the dataset's own answers.

    Raises:
        UsageError: if the dataset's answers are to be learned and are not there, if a trajectory
            has tokens that the model has not, or if none is left.
    """

    def __init__(
        self,
        trajectories: Iterable[Trajectory],
        stop_ids: Collection[int],
        max_length: int,
        *,
        vocabulary_size: int = 1 << 31,
        dataset_answers: bool = False,
        local: bool = False,
    ) -> None:
        self.left_out, self.n, self.has_labels = 0, 0, False
        self._stop_ids, self._max_length = stop_ids, max_length
        self._vocabulary_size = vocabulary_size
        self._dataset_answers, self._local = dataset_answers, local
        self._by_text: dict[tuple[str, TokenIds], AnswerBlocks] = {}
        for trajectory in trajectories:
            self._add(trajectory)
        self.answers = list(self._by_text.values())
        if not self.answers:
            raise UsageError(
                f"no trajectory begins within the first {max_length} tokens",
                "raise --model_max_length",
            )

    def _add(self, trajectory: Trajectory) -> None:
        """Add a block to its answer."""
        self._check_tokens(trajectory)
        start, question_length = len(trajectory.prompt), trajectory.question_length
        block_end = (*trajectory.prompt, *trajectory.states[-1])
        complete = tuple(trajectory.complete)
        if complete[: len(block_end)] != block_end:
            complete = block_end  # published sets may lack the whole answer
        tokens = _packed(self._until_stop(complete, question_length))
        if start >= len(tokens):
            self.left_out += 1
            return
        labels = trajectory.labels
        if self._dataset_answers and not (labels and labels[0] == complete[0]):
            raise UsageError(
                f"--use_gt_labels: {trajectory.data_id} has no labels_ids that begin like its "
                "prompt_ids",
                "nfox data trajectories --use-labels writes them",
            )
        self.n = max(self.n, len(trajectory.states[-1]))
        self.has_labels = self.has_labels or labels is not None
        if labels is not None:
            learns = self._dataset_answers
            labels = self._until_stop(labels, question_length) if learns else None
        answer = self._by_text.setdefault(
            (trajectory.data_id, complete), AnswerBlocks(question_length, tokens, labels)
        )
        answer.blocks.append((start, self._pairs(trajectory, len(tokens) - start)))

    def _check_tokens(self, trajectory: Trajectory) -> None:
        """Refuse a trajectory of a model with more tokens.

        Raises:
            UsageError: if it has such tokens.
        """
        texts = (trajectory.prompt, *trajectory.states, trajectory.complete, trajectory.labels)
        last = max(max(text) for text in texts if text)
        if last >= self._vocabulary_size:
            raise UsageError(
                f"the trajectory {trajectory.data_id} has a token {last}, the model's end at "
                f"{self._vocabulary_size - 1}",
                "collect trajectories of this model: nfox data trajectories",
            )

    def _until_stop(self, tokens: TokenIds, question_length: int) -> TokenIds:
        """Return tokens up to the first stop token of the answer, at most `max_length`."""
        stops = (i for i in range(question_length, len(tokens)) if tokens[i] in self._stop_ids)
        return tokens[: min(next(stops, len(tokens)) + 1, self._max_length)]

    def _pairs(self, trajectory: Trajectory, length: int) -> list[StatePair]:
        """Return the pairs of different states of a block's first `length` tokens."""
        distinct = {tuple(state[:length]): _packed(state[:length]) for state in trajectory.states}
        states = [distinct[tuple(state[:length])] for state in trajectory.states]
        final = states[-1]
        if self._local:
            pairs = [StatePair(*pair) for pair in pairwise(states[trajectory.augmented :])]
        else:
            pairs = [StatePair(state, final) for state in distinct.values()]
        return [pair for pair in pairs if pair.student != pair.teacher]


def _packed(tokens: TokenIds) -> TokenIds:
    """Return tokens in 4 bytes each, since a large dataset has many states."""
    return array("i", tokens)
