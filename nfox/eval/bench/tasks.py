"""What a benchmark asks: published sets by name, or files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from nfox.errors import UsageError
from nfox.eval.bench.runner import Task
from nfox.files.records import records
from nfox.train.data import tasks as task_data
from nfox.train.data.conversations import gather

SPEC_BENCH = "spec-bench"
_GITHUB = "https://raw.githubusercontent.com"
SOURCES = {
    "codesearchnet": "code-search-net/code_search_net@python:test",
    "gsm8k": "openai/gsm8k@main:test",
    "humaneval": "openai/openai_humaneval:test",
    "mt-bench": f"{_GITHUB}/lm-sys/FastChat/main/fastchat/llm_judge/data/mt_bench/question.jsonl",
    "sgd": f"{_GITHUB}/google-research-datasets/dstc8-schema-guided-dialogue/master/dev/"
    "dialogues_001.json",
    "sharegpt": "anon8231489123/ShareGPT_Vicuna_unfiltered",
    SPEC_BENCH: f"{_GITHUB}/hemingkx/Spec-Bench/main/data/spec_bench/question.jsonl",
    "spider": "xlangai/spider:validation",
}
"""Where sets lie that have a name: on the hub, or where they were published."""

_MT_BENCH = frozenset(
    ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
)
_NAMES = ("question_id", "task_id", "dialogue_id", "id")

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
        limit: so many of each at most, from all of its categories in turn.
        turns: of a conversation at most.
        schemas: of Spider's databases, see `nfox.train.data.tasks.read`.
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
        kept += [replace(task, turns=task.turns[:turns]) for task in _some(found.kept, limit)]
        skipped += found.skipped
    if not kept:
        raise UsageError("no prompts", f"name a file, or some of demo, {', '.join(SOURCES)}")
    return Tasks(kept, skipped)


def _some(tasks: Sequence[Task], limit: int | None) -> list[Task]:
    """Return so many at most, in their order, of all categories alike."""
    if limit is None:
        return list(tasks)
    kinds: dict[str, list[int]] = {}
    for place, task in enumerate(tasks):
        kinds.setdefault(task.category, []).append(place)
    turns = (place for turn in zip_longest(*kinds.values()) for place in turn if place is not None)
    return [tasks[place] for place in sorted(islice(turns, limit))]


def _read(part: str, databases: task_data.Databases, cache_dir: str | None) -> Tasks:
    if part == "demo":
        made = [
            Task(f"{kind}-{place}", kind, (text,))
            for kind, texts in DEMO.items()
            for place, text in enumerate(texts)
        ]
        return Tasks(made)
    name, equals, source = part.partition("=")
    if not equals and part not in SOURCES and "/" not in part and not Path(part).exists():
        raise UsageError(
            f"{part}: there is no such file, and no set of that name",
            f"known are demo, {', '.join(SOURCES)}; a dataset on the hub is OWNER/NAME",
        )
    if not equals or "/" in name:  # an address may have one in it
        name, source = (part, SOURCES[part]) if part in SOURCES else (Path(part).stem, part)
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
        label = next((known[key] for key in _NAMES if key in known), None)
        category = known.get("category") or name
        if name == SPEC_BENCH and category in _MT_BENCH:
            category = "multi-turn"  # one of its six tasks
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
