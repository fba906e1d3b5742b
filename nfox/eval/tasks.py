"""What a benchmark asks: published sets by name, or files."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nfox.errors import UsageError
from nfox.eval.trials import Task
from nfox.train import task_data
from nfox.train.data import gather, records

HUB = {
    "gsm8k": "openai/gsm8k@main:test",
    "humaneval": "openai/openai_humaneval:test",
    "mt-bench": "HuggingFaceH4/mt_bench_prompts",
    "sharegpt": "anon8231489123/ShareGPT_Vicuna_unfiltered",
}
"""Where sets lie that have a name."""

DEMO = {
    "skills": (
        "What is 12 + 7?",
        "How do you spell giraffe?",
        "Count from 5 to 15.",
        "What is the opposite of hot?",
        "What is the capital of France?",
        "Tell me a joke.",
        "Write a short poem about the sea.",
        "What are you?",
    ),
    "dialogue": (
        "I want to find a restaurant in San Francisco.",
        "Can you book me a bus to Los Angeles?",
        "What will the weather be like tomorrow?",
        "I am looking for a room for two nights.",
    ),
    "maths": (
        "Anna has 5 apples and buys 7 more. She gives 3 to Ben. How many apples does she have?",
        "A book costs 4 dollars and a pen costs 2 dollars. How much do 3 books and 2 pens cost?",
        "Tom reads 10 pages a day. How many pages does he read in 2 weeks?",
        "A train goes 60 miles in one hour. How far does it go in 5 hours?",
    ),
}
"""Questions for the embedded model, by category."""

LAYOUTS = f'{{"turns": [text]}}, {{"prompt": text}}, {task_data.TASKS}, or conversations'


@dataclass(frozen=True)
class Tasks:
    """What was found.

    Args:
        kept: to be asked.
        skipped: records that ask nothing.
    """

    kept: list[Task]
    skipped: int = 0


def read(
    given: str,
    limit: int | None = None,
    turns: int | None = None,
    schemas: Path | None = None,
    cache_dir: str | None = None,
) -> Tasks:
    """Read tasks.

    Args:
        given: names of sets, files, dataset ids on the hub, or NAME=FILE, separated by commas; the
            name becomes the category of tasks that have none.
        limit: so many of each at most.
        turns: of a conversation at most.
        schemas: of Spider's databases, see `nfox.train.task_data.read`.
        cache_dir: where downloads are kept.

    Raises:
        UsageError: if there is nothing of a name, or nothing to ask in it.
    """
    databases = task_data.Databases(schemas)
    kept: list[Task] = []
    skipped = 0
    for part in filter(None, map(str.strip, given.split(","))):
        found = _read(part, databases, cache_dir)
        if not found.kept:
            raise UsageError(f"{part}: nothing to ask in it", f"expected {LAYOUTS}")
        kept += [replace(task, turns=task.turns[:turns]) for task in found.kept[:limit]]
        skipped += found.skipped
    if not kept:
        raise UsageError("no prompts", f"name a file, or some of demo, {', '.join(HUB)}")
    return Tasks(kept, skipped)


def _read(part: str, databases: task_data.Databases, cache_dir: str | None) -> Tasks:
    if part == "demo":
        made = [
            Task(f"{kind}-{place}", kind, (text,))
            for kind, texts in DEMO.items()
            for place, text in enumerate(texts)
        ]
        random.Random(0).shuffle(made)  # so that a limit leaves some of each kind
        return Tasks(made)
    name, equals, source = part.partition("=")
    if not equals:
        name, source = (part, HUB[part]) if part in HUB else (Path(part).stem, part)
    return _tasks(records(source, cache_dir), name, databases)


def _tasks(found: Iterable[Any], name: str, databases: task_data.Databases) -> Tasks:
    kept: list[Task] = []
    skipped = 0
    for place, record in enumerate(found):
        turns = _turns(record, databases)
        if not turns:
            skipped += 1
            continue
        known = record if isinstance(record, Mapping) else {}
        label = next((known[key] for key in ("question_id", "task_id", "id") if key in known), None)
        category = known.get("category") or name
        kept.append(Task(f"{name}-{place if label is None else label}", str(category), turns))
    return Tasks(kept, skipped)


def _turns(record: Any, databases: task_data.Databases) -> tuple[str, ...]:
    """Return what a person says in a record of any known layout."""
    if isinstance(record, Mapping):
        for key in ("turns", "prompt"):
            said = record.get(key)
            said = [said] if isinstance(said, str) else said
            if isinstance(said, list) and said and all(isinstance(turn, str) for turn in said):
                return tuple(said)
    asks = task_data.question(record, databases)
    if asks is not None:
        return (asks,)
    asked = gather([record], replies=False).kept
    return tuple(message.content for message in asked[0] if message.role == "user") if asked else ()
