"""Answer files of FastChat's llm_judge and of the harnesses that descend from it: one JSON line for
each question, {"question_id", "model_id", "category", "choices": [{"index", "turns", ...}]}.

What their scripts mean by a choice's fields, all but the last a list with one item a reply:

- `turns`: the texts.
- `new_tokens`: tokens of the reply. The loops of Medusa, EAGLE, CTC-drafter and Spec-Bench end
  after the step that has the end token, and count what it drafted behind that too. Plain decoding
  of Medusa and CTC-drafter counts nothing: it says 0.
- `wall_time`: seconds, those of the prompt's forward among them.
- `idxs`: the last step's number from 0, so steps - 1; the prompt's forward is no step. In early
  files of Spec-Bench it is tokens - 1 for prompt lookup and draft models.
- `decoding_steps`: its later name in Spec-Bench, an index or a count as the method has it. None of
  the scripts reads it.
- `accept_lengths` (Spec-Bench): tokens that each step added, the target's own (bonus) among them;
  steps of all replies in one flat list. Its mean is the tau that `speed.py` says.

So one file serves all readers: tokens are the sum of `accept_lengths`, of which there are as many
as `decoding_steps`, one more than `idxs` for each reply.

Two more traps. Spec-Bench takes the baseline's tokens from its texts, by tokenising them again, and
those of the method from `new_tokens`. And a reply that failed has the text "ERROR" and the numbers
of the reply before.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, Field, ValidationError

from nfox.decoding.stats import Stats
from nfox.errors import UsageError
from nfox.eval.bench.runner import Task, Trial

LAYOUT = '{"question_id": 81, "choices": [{"turns": [text], ...}]}'
FAILED = "ERROR"
"""Text of a reply that failed."""

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Choice(BaseModel):
    """A question's conversation, held once; see this module for the fields."""

    turns: list[str]
    new_tokens: list[Count] | None = None
    wall_time: list[Seconds] | None = None
    idxs: list[int] | None = None
    decoding_steps: list[Count] | None = None
    accept_lengths: list[Count] | None = Field(
        None,
        validation_alias=AliasChoices("accept_lengths", "accept_lengths:"),  # so in early files
    )

    @property
    def steps(self) -> int | None:
        """How many there were, if anything says so."""
        if self.accept_lengths:
            return len(self.accept_lengths)
        if self.idxs:
            return sum(self.idxs) + len(self.idxs)
        return sum(self.decoding_steps) if self.decoding_steps else None

    @property
    def tokens(self) -> int:
        """How many all replies have; plain decoding that counted none gave one a step."""
        return sum(self.new_tokens or ()) or self.steps or 0

    @property
    def emitted(self) -> int:
        """How many came of steps: what tau counts."""
        return sum(self.accept_lengths) if self.accept_lengths else self.tokens

    @property
    def seconds(self) -> float:
        """How long it took; 0 if nobody measured."""
        return sum(self.wall_time or ())


class Answer(BaseModel):
    """A line of a file."""

    question_id: int | str
    category: str | None = None
    choices: list[Choice] = Field(min_length=1)


@dataclass(frozen=True)
class AnswerFile:
    """What was read.

    Args:
        path: of the file.
        answers: by their question's id, as a text.
    """

    path: Path
    answers: Mapping[str, Answer]

    @property
    def model(self) -> str:
        """Who answered: FastChat knows models by the names of their files."""
        return self.path.stem

    @property
    def failed(self) -> int:
        """How many replies are none."""
        choices = [choice for one in self.answers.values() for choice in one.choices]
        return sum(choice.turns.count(FAILED) for choice in choices)


def read(path: Path) -> AnswerFile:
    """Read a file. Where a question stands twice the later line counts, as in FastChat.

    Raises:
        UsageError: if there is no such file, or a line of it is in none of the layouts.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not readable as text"
        raise UsageError(f"{path}: {why}", f"name a file of answers: {LAYOUT} on a line") from error
    answers = {}
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            answer = _answer(line, f"{path}, line {number}")
            answers[str(answer.question_id)] = answer
    if not answers:
        raise UsageError(f"{path}: no answer in it", f"expected {LAYOUT} on every line")
    return AnswerFile(path, answers)


def _answer(line: str, where: str) -> Answer:
    try:
        return Answer.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        said = f"{place}: {first['msg']}" if place else first["msg"]
        raise UsageError(f"{where}: {said}", f"expected {LAYOUT}") from error


def write(
    trials: Sequence[Trial],
    tasks: Sequence[Task],
    decode: Callable[[Sequence[int]], str],
    model: str,
    peers: Collection[str] = (),
) -> dict[str, str]:
    """Return the text of a file for every entrant, by the file's name.

    Every round is a choice. A round without a reply, as of a question that is longer than the
    context, is left out, since the public scripts divide by its time.

    Args:
        trials: of all entrants.
        tasks: that they are of.
        decode: gives a reply's text.
        model: name of the target; with the entrant's it is the `model_id` and the file's name.
        peers: entrants whose stats leave out what came with the prompt's forward.
    """
    ids = question_ids(tasks)
    lines: dict[str, dict[int, list[Trial]]] = {}
    for trial in trials:
        if trial.replies:
            lines.setdefault(trial.entrant, {}).setdefault(trial.task, []).append(trial)

    def line(task: int, held: Sequence[Trial]) -> dict[str, Any]:
        who = held[0].entrant
        choices = [_choice(trial, decode, peer=who in peers) for trial in held]
        return _line(ids[task], named[who], tasks[task].category, choices)

    named = {who: re.sub(r"[^\w.=+-]+", "-", f"{model}-{who}") for who in lines}
    return {
        f"{named[who]}.jsonl": "".join(
            json.dumps(line(task, held), ensure_ascii=False) + "\n"
            for task, held in sorted(found.items())
        )
        for who, found in lines.items()
    }


def question_ids(tasks: Sequence[Task]) -> list[int | str]:
    """Return the ids that the questions' source gave them.

    A task's id is its source's name, a dash, and that id. FastChat's are numbers. Where two sources
    have the same ones, tasks keep their own.
    """
    found = list(map(_question_id, tasks))
    return found if len(set(found)) == len(found) else [task.id for task in tasks]


def _question_id(task: Task) -> int | str:
    number = re.search(r"(?:^|-)(\d+)$", task.id)
    return int(number[1]) if number else task.id.removeprefix(f"{task.category}-")


def _line(
    question: int | str, model: str, category: str, choices: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "question_id": question,
        "answer_id": uuid.uuid4().hex,
        "model_id": model,
        "category": category,
        "choices": choices,
        "tstamp": time.time(),
    }


def _choice(trial: Trial, decode: Callable[[Sequence[int]], str], *, peer: bool) -> dict[str, Any]:
    pairs = zip(trial.replies, trial.stats, strict=True)
    lengths = [_with_first(ids, stats) if peer else stats.lengths for ids, stats in pairs]
    return {
        "index": trial.turn,
        "turns": [decode(ids).strip() for ids in trial.replies],
        "idxs": [max(len(each) - 1, 0) for each in lengths],
        "decoding_steps": [len(each) for each in lengths],
        "new_tokens": [sum(each) for each in lengths],
        "wall_time": [stats.prefill_seconds + stats.seconds for stats in trial.stats],
        "accept_lengths": [count for each in lengths for count in each],
    }


def _with_first(ids: Sequence[int], stats: Stats) -> list[int]:
    """Return how many tokens each step of a peer's reply added, the prompt's forward among them.

    Its stats leave that out, but `wall_time` does not: without its tokens the peer would seem
    slower than it is. For all that Spec-Bench runs on `generate` it is a step as well.
    """
    # An end token is in the stats, but not in the ids: then one of several would not be seen here.
    return [max(len(ids) - sum(stats.lengths), 1), *stats.lengths]
