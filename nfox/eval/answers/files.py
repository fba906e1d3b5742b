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
- `accept_lengths` (Spec-Bench): tokens that each step added, the target's own among them;
  steps of all replies in one flat list. Its mean is the tau that Spec-Bench's `speed.py` says.

So one file serves all readers: tokens are the sum of `accept_lengths`, of which there are as many
as `decoding_steps`, one more than `idxs` for each reply.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from typing import Any

from nfox.controls import json_text
from nfox.decoding.stats import Stats
from nfox.eval.bench.trials import Task, Trial


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
        tasks: that the trials are of.
        decode: returns the text of a reply's token ids.
        model: name of the target; with the entrant's it is the `model_id` and the file's name.
        peers: entrants whose stats leave out what came with the prompt's forward.
    """
    ids = question_ids(tasks)
    answered: dict[str, dict[int, list[Trial]]] = {}
    for trial in trials:
        if trial.replies:
            answered.setdefault(trial.entrant, {}).setdefault(trial.task, []).append(trial)
    files = {}
    for entrant, by_task in answered.items():
        name = re.sub(r"[^\w.=+-]+", "-", f"{model}-{entrant}")
        text = ""
        for task, rounds in sorted(by_task.items()):
            choices = [_choice(trial, decode, peer=entrant in peers) for trial in rounds]
            line = _line(ids[task], name, tasks[task].category, choices)
            text += json_text(line) + "\n"
        files[f"{name}.jsonl"] = text
    return files


def question_ids(tasks: Sequence[Task]) -> list[int | str]:
    """Return the ids that questions have in their source.

    A task's id is its source's name, a dash, and that id. FastChat's are numbers. Where two sources
    have questions of the same ids, the ids are those of the tasks.
    """
    ids = list(map(_question_id, tasks))
    return ids if len(set(ids)) == len(ids) else [task.id for task in tasks]


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
        "index": trial.round,
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
