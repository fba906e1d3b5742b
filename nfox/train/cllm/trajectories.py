"""Jacobi trajectories on disk: how a model comes to its own answers, n tokens at a time, in the
layout of the published sets. Both kinds are read here; `nfox.train.cllm.collect` makes ours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Any

from nfox.errors import UsageError
from nfox.files.records import records
from nfox.text.messages import Message

LAYOUT = (
    '{"data_id", "jacobian_itr_id", "prompt_ids_len", "prompt_ids", "answer_trajectory_ids": '
    '[states][n], "teacher_output_ids", "complete_teacher_output_ids"}'
)
REPEATS = 10
"""So many equal tokens in a row make an output worthless to learn from."""
_NAMED = ("data_id", "jacobian_itr_id")


@dataclass(frozen=True)
class Trajectory:
    """The states of one block.

    Args:
        data_id: names the question.
        block: which of its answer's blocks this is, from 0.
        asked: how many tokens the question has.
        prompt: tokens of the text before the block: the question, and the blocks before.
        states: tokens of the block: random ones first, what each iteration made of them, and last
            the fixed point, which is the model's own greedy text.
        complete: tokens of the question and of all blocks of its answer.
        labels: tokens of the question and of the dataset's own answer, if they were kept.
        augmented: how many states at the front are none of the iteration's own, but such with
            some wrong tokens put right; 0 also where that is not known, as in published sets.
    """

    data_id: str
    block: int
    asked: int
    prompt: Sequence[int]
    states: Sequence[Sequence[int]]
    complete: Sequence[int]
    labels: Sequence[int] | None = None
    augmented: int = 0

    def record(self) -> dict[str, Any]:
        """Return what is written: nested as the published programs read it."""
        written: dict[str, Any] = {
            "data_id": self.data_id,
            "jacobian_itr_id": f"itr_{self.block}",
            "prompt_ids_len": [self.asked],
            "prompt_ids": [list(self.prompt)],
            "answer_trajectory_ids": [list(state) for state in self.states],
            "teacher_output_ids": [[*self.prompt, *self.states[-1]]],
            "complete_teacher_output_ids": list(self.complete),
        }
        if self.labels is not None:
            written["labels_ids"] = list(self.labels)
        return written | ({"augmented": self.augmented} if self.augmented else {})


def question(messages: Sequence[Message]) -> list[Message]:
    """Return what a conversation opens with: a system message or none, and the first question."""
    first = next(place for place, message in enumerate(messages) if message.role == "user")
    return list(messages[: first + 1])


def repeats(tokens: Sequence[int], ends: Collection[int]) -> bool:
    """Whether an output says one token `REPEATS` times in a row before it ends."""
    said = takewhile(lambda token: token not in ends, tokens)
    return any(len(list(run)) >= REPEATS for _, run in groupby(said))


def read_trajectories(source: str, cache_dir: str | None = None) -> Iterator[Trajectory]:
    """Read trajectories, ours (JSON lines) or published ones (a JSON list).

    Args:
        source: a file, or a dataset's id on the hub, its split after a colon.
        cache_dir: where a download is kept.

    Raises:
        UsageError: if there is nothing of that name, or a record has another layout.
    """
    number = 0
    for number, record in enumerate(records(source, cache_dir), 1):
        try:
            yield _parsed(record)
        except (TypeError, ValueError, LookupError) as error:
            odd = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else error
            raise UsageError(
                f"{source}: record {number} is no Jacobi trajectory: {odd}", f"expected {LAYOUT}"
            ) from error
    if not number:
        raise UsageError(f"{source}: no trajectory in it", f"expected {LAYOUT}")


def _parsed(record: Any) -> Trajectory:
    if not isinstance(record, Mapping):
        raise TypeError("no JSON object")
    states = [_tokens(state, "answer_trajectory_ids") for state in record["answer_trajectory_ids"]]
    if len({len(state) for state in states}) != 1:
        raise ValueError("answer_trajectory_ids are no states of equal length")
    data_id, block = (str(record[name]) for name in _NAMED)
    prompt = _tokens(record["prompt_ids"], "prompt_ids")
    output = _tokens(record["teacher_output_ids"], "teacher_output_ids")
    if len(output) != len(prompt) + len(states[0]):
        raise ValueError("teacher_output_ids are not as long as prompt_ids and a state")
    named = "complete_teacher_output_ids"
    labels = record.get("labels_ids")
    return Trajectory(
        data_id,
        int(block.removeprefix("itr_")),
        _tokens([record["prompt_ids_len"]], "prompt_ids_len")[0],
        prompt,
        states,
        _tokens(record[named], named),
        None if labels is None else _tokens(labels, "labels_ids"),
        int(record.get("augmented", 0)),
    )


def _tokens(nested: Any, name: str) -> list[int]:
    """Return ids; published files wrap them in lists of one, some twice."""
    found = nested
    while isinstance(found, list) and len(found) == 1 and isinstance(found[0], list):
        found = found[0]
    if not isinstance(found, list) or not found or not all(type(item) is int for item in found):
        raise ValueError(f"{name} are no list of token ids")
    return found
