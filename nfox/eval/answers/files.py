"""Answer files of FastChat's llm_judge and of the harnesses that descend from it: one JSON line for
each question, {"question_id", "model_id", "category", "choices": [{"index", "turns", ...}]}.

What their scripts mean by a choice's fields, all but the last a list with one item a reply:

- `turns`: the texts.
- `new_tokens`: tokens of the reply. The loops of Medusa, EAGLE, CTC-drafter and Spec-Bench end
  after the step that has the end token, and count what it drafted behind that too.
- `wall_time`: seconds, those of the prompt's forward among them.
- `idxs`: the last step's number from 0, so steps - 1; the prompt's forward is no step.
- `decoding_steps`: its later name in Spec-Bench, an index or a count as the method has it. None of
  the scripts reads it.
- `accept_lengths` (Spec-Bench): tokens that each step added, the target's own (bonus) among them;
  steps of all replies in one flat list. Its mean is the tau that Spec-Bench's `speed.py` says.

So one file serves all readers: tokens are the sum of `accept_lengths`, of which there are as many
as `decoding_steps`, one more than `idxs` for each reply.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from typing import Any

from nfox.decoding.stats import Stats
from nfox.eval.bench.runner import Task, Trial


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
