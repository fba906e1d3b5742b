"""Jacobi trajectories and their layout on disk, which is that of the published datasets.

A trajectory has the states of Jacobi decoding for one block of n tokens of a model's own answer.
`nfox.train.cllm.collect` makes them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Any

from nfox.errors import UsageError
from nfox.files.reading import refusing
from nfox.files.records import read_records
from nfox.text.messages import Message

LAYOUT = (
    '{"data_id", "jacobian_itr_id", "prompt_ids_len", "prompt_ids", "answer_trajectory_ids": '
    '[states][n], "teacher_output_ids", "complete_teacher_output_ids"}'
)
_MOST_TOKENS = 1 << 31
REPEATS = 10
"""The number of equal tokens in a row that make an answer worthless to learn from."""


@dataclass(frozen=True)
class Trajectory:
    """The states of Jacobi decoding for one block.

    Args:
        data_id: the name of the question.
        block: the index of the block in its answer.
        question_length: the number of tokens of the question.
        prompt: the token ids before the block: the question, and the blocks before.
        states: [K + 1][n] token ids of the block: random ones first, then the state after each
            iteration, and last the fixed point, which is the model's own greedy text.
        complete: the token ids of the question and of all blocks of its answer.
        labels: the token ids of the question and of the dataset's own answer, if they were kept.
        augmented: the number of states at the front that are no states of the iteration, but such
            with some wrong tokens corrected; 0 also where it is unknown, as in published datasets.
    """

    data_id: str
    block: int
    question_length: int
    prompt: Sequence[int]
    states: Sequence[Sequence[int]]
    complete: Sequence[int]
    labels: Sequence[int] | None = None
    augmented: int = 0

    def record(self) -> dict[str, Any]:
        """Return the trajectory as a JSON record, nested as the published programs read it."""
        record: dict[str, Any] = {
            "data_id": self.data_id,
            "jacobian_itr_id": f"itr_{self.block}",
            "prompt_ids_len": [self.question_length],
            "prompt_ids": [list(self.prompt)],
            "answer_trajectory_ids": [list(state) for state in self.states],
            "teacher_output_ids": [[*self.prompt, *self.states[-1]]],
            "complete_teacher_output_ids": list(self.complete),
        }
        if self.labels is not None:
            record["labels_ids"] = list(self.labels)
        return record | ({"augmented": self.augmented} if self.augmented else {})


def first_question(messages: Sequence[Message]) -> list[Message]:
    """Return the first user's message of a conversation, with the system message before it."""
    index = next(i for i, message in enumerate(messages) if message.role == "user")
    return list(messages[: index + 1])


def repeats(tokens: Sequence[int], stop_ids: Collection[int]) -> bool:
    """Return whether an answer has a token `REPEATS` times in a row before its stop token."""
    answer = takewhile(lambda token: token not in stop_ids, tokens)
    return any(len(list(run)) >= REPEATS for _, run in groupby(answer))


def read_trajectories(data_path: str, cache_dir: str | None = None) -> Iterator[Trajectory]:
    """Read trajectories, ours (JSON lines) or published ones (a JSON list).

    Args:
        data_path: the file or hub dataset, see `nfox.files.records.read_records`.
        cache_dir: the folder of downloads from the hub.

    Raises:
        UsageError: if there is no such dataset, or a record has another layout.
    """
    number = 0
    for number, record in enumerate(read_records(data_path, cache_dir), 1):
        with refusing(f"{data_path}: record {number} is no Jacobi trajectory", LAYOUT):
            trajectory = _parse(record)
        yield trajectory
    if not number:
        raise UsageError(f"{data_path}: no trajectory in it", f"expected {LAYOUT}")


def _parse(record: Any) -> Trajectory:
    """Return the trajectory of a JSON record; any error says that it has another layout."""
    if not isinstance(record, Mapping):
        raise TypeError("no JSON object")
    states = [_tokens(state, "answer_trajectory_ids") for state in record["answer_trajectory_ids"]]
    if len({len(state) for state in states}) != 1:
        raise ValueError("answer_trajectory_ids are no states of equal length")
    data_id, block = (str(record[name]) for name in ("data_id", "jacobian_itr_id"))
    prompt = _tokens(record["prompt_ids"], "prompt_ids")
    output = _tokens(record["teacher_output_ids"], "teacher_output_ids")
    if len(output) != len(prompt) + len(states[0]):
        raise ValueError("teacher_output_ids are not as long as prompt_ids and a state")
    labels = record.get("labels_ids")
    question_length = _tokens([record["prompt_ids_len"]], "prompt_ids_len")[0]
    augmented = record.get("augmented", 0)
    if not 0 < question_length <= len(prompt):
        raise ValueError(f"prompt_ids_len is {question_length}, of {len(prompt)} prompt_ids")
    if type(augmented) is not int or not 0 <= augmented < len(states):
        raise ValueError(f"augmented is {augmented!r:.40}, of {len(states)} states")
    return Trajectory(
        data_id,
        int(block.removeprefix("itr_")),
        question_length,
        prompt,
        states,
        _tokens(record["complete_teacher_output_ids"], "complete_teacher_output_ids"),
        None if labels is None else _tokens(labels, "labels_ids"),
        augmented,
    )


def _tokens(nested: Any, name: str) -> list[int]:
    """Return a list of token ids, which published files wrap in lists of one, some twice.

    Raises:
        ValueError: if there is no such list.
    """
    ids = nested
    while isinstance(ids, list) and len(ids) == 1 and isinstance(ids[0], list):
        ids = ids[0]
    if (
        not isinstance(ids, list)
        or not ids
        or not all(type(item) is int and 0 <= item < _MOST_TOKENS for item in ids)
    ):
        raise ValueError(f"{name} are no list of token ids")
    return ids
