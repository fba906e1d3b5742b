"""The tasks of a benchmark: published sets by name, or files."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

from nfox.errors import UsageError
from nfox.eval.bench.trials import Task
from nfox.files.records import read_records
from nfox.train.data import tasks as task_data
from nfox.train.data.conversations import parse_records

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
    "speed-bench": "nvidia/SPEED-Bench@qualitative:test",
    "spider": "xlangai/spider:validation",
}
"""Where the sets that have a name lie: on the hub, or at the address of their publication."""

_MT_BENCH = frozenset(
    ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
)
_LEFT_OUT = "FULL BENCHMARK DATA SHOULD BE FETCHED FROM THE SOURCE"
"""What SPEED-Bench says where its prompts may not be copied, until NVIDIA's script fetches them."""
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
class TaskList:
    """The tasks that were read.

    Args:
        tasks: conversations to hold.
        skipped: the number of records that ask nothing.
    """

    tasks: list[Task]
    skipped: int = 0


def read(
    sources: str,
    limit: int | None = None,
    turns: int | None = None,
    schemas: Path | None = None,
    categories: Collection[str] = (),
) -> TaskList:
    """Read the tasks of a benchmark.

    Args:
        sources: names of sets, files, dataset ids on the hub, or NAME=FILE, separated by commas;
            the name becomes the category of tasks that have none.
        limit: tasks of each source at most, taken from all of its categories in turn.
        turns: turns of a conversation at most.
        schemas: the schemas of Spider's databases, see `nfox.train.data.tasks.read_tasks`.
        categories: of the tasks that are taken; none for all.

    Raises:
        UsageError: if there is no such source or category, or nothing to ask in it.
    """
    databases = task_data.DatabaseSchemas(schemas)
    tasks: list[Task] = []
    known: dict[str, None] = {}
    skipped = 0
    for source in filter(None, map(str.strip, sources.split(","))):
        listed = _demo() if source == "demo" else _read(source, databases)
        if not listed.tasks:
            raise UsageError(f"{source}: nothing to ask in it", f"expected {LAYOUTS}")
        known |= {task.category: None for task in listed.tasks}
        chosen = [task for task in listed.tasks if not categories or task.category in categories]
        limited = chosen if limit is None else _of_all_categories(chosen, limit)
        tasks += [replace(task, turns=task.turns[:turns]) for task in limited]
        skipped += listed.skipped
    missing = next((name for name in categories if name not in known), None)
    if missing and known:
        raise UsageError(f"no task is of the category {missing!r}", f"there are {', '.join(known)}")
    if not tasks:
        raise UsageError("no prompts", f"name a file, or some of demo, {', '.join(SOURCES)}")
    return TaskList(tasks, skipped)


def _of_all_categories(tasks: Sequence[Task], limit: int) -> list[Task]:
    """Return so many tasks at most, in their order, of all categories alike."""
    by_category: dict[str, list[int]] = {}
    for index, task in enumerate(tasks):
        by_category.setdefault(task.category, []).append(index)
    in_turn = chain.from_iterable(zip_longest(*by_category.values()))
    chosen = islice((index for index in in_turn if index is not None), limit)
    return [tasks[index] for index in sorted(chosen)]


def _demo() -> TaskList:
    """Return the questions for the embedded model."""
    return TaskList(
        [
            Task(f"{category}-{number}", category, (text,))
            for category, texts in DEMO.items()
            for number, text in enumerate(texts)
        ]
    )


def _read(source: str, databases: task_data.DatabaseSchemas) -> TaskList:
    """Read one source, of any known layout."""
    name, equals, location = source.partition("=")
    if not equals and source not in SOURCES and "/" not in source and not Path(source).exists():
        raise UsageError(
            f"{source}: there is no such file, and no set of that name",
            f"known are demo, {', '.join(SOURCES)}; a dataset on the hub is OWNER/NAME",
        )
    if not equals or "/" in name:  # an address may have one in it
        name, location = (
            (source, SOURCES[source]) if source in SOURCES else (Path(source).stem, source)
        )
    tasks: list[Task] = []
    skipped = 0
    for number, record in enumerate(read_records(location)):
        turns = _turns(record, databases)
        if not turns:
            skipped += 1
            continue
        fields = record if isinstance(record, Mapping) else {}
        label = next((fields[key] for key in _NAMES if key in fields), number)
        category = str(fields.get("category") or name)
        if name == SPEC_BENCH and category in _MT_BENCH:
            category = "multi-turn"  # one of its six tasks
        tasks.append(Task(f"{name}-{number if label is None else label}", category, turns))
    return TaskList(tasks, skipped)


def _turns(record: Any, databases: task_data.DatabaseSchemas) -> tuple[str, ...]:
    """Return what a person says in a record of any known layout."""
    if isinstance(record, Mapping):
        for key in ("turns", "prompt"):
            value = record.get(key)
            turns = [value] if isinstance(value, str) else value
            if isinstance(turns, list) and turns and all(isinstance(turn, str) for turn in turns):
                return () if turns[0].startswith(_LEFT_OUT) else tuple(turns)
    question = task_data.task_question(record, databases)
    if question is not None:
        return (question,)
    conversations = parse_records([record], replies=False).conversations
    messages = conversations[0] if conversations else []
    return tuple(message.content for message in messages if message.role == "user")
