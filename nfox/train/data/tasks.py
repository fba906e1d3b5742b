"""Records of published tasks as conversations: GSM8K, Spider and CodeSearchNet (Python), besides
those of `nfox.train.data.conversations`.

What a user's message holds is what the templates cllm-math, cllm-spider and cllm-python expect.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from nfox.errors import UsageError
from nfox.files.records import records
from nfox.train.data.conversations import LAYOUTS, Conversations, gather, some

TASKS = (
    '{"question", "answer"} (GSM8K), {"question", "query", "db_id"} (Spider) '
    'or {"docstring", "code"} (CodeSearchNet)'
)
_DOCUMENTATION = ("func_documentation_string", "docstring")
_CODE = ("func_code_string", "whole_func_string", "code")
Tables = dict[str, list[str]]
"""The columns of each table of a database."""


def read(
    source: str, schemas: Path | None = None, cache_dir: str | None = None, *, replies: bool = True
) -> Conversations:
    """Read conversations and tasks; a task is a question and its answer.

    Args:
        source: see `nfox.files.records`.
        schemas: of Spider's databases: its tables.json, or the folder of its SQLite files.
        cache_dir: where a download is kept.
        replies: whether the answers are needed.

    Raises:
        UsageError: if there is nothing of that name, nothing in it to learn from, or a database
            whose tables are not known.
    """
    found = gather(_conversations(records(source, cache_dir), schemas), replies=replies)
    return some(source, found, replies=replies, layouts=f"{TASKS}, or {LAYOUTS}")


def _conversations(found: Iterable[Any], schemas: Path | None) -> Iterable[Any]:
    databases = Databases(schemas)
    for record in found:
        pair = _pair(record, databases) if isinstance(record, Mapping) else None
        if pair is None:
            yield record
            continue
        question, answer = pair
        turns = [{"role": "user", "content": question}]
        # Without an answer, as in a test set, it is still a question.
        yield turns + ([{"role": "assistant", "content": answer}] if answer is not None else [])


def question(record: Any, databases: Databases) -> str | None:
    """Return what a task's record asks; None for a record of another kind.

    Args:
        record: of a file.
        databases: of Spider.

    Raises:
        UsageError: if a database's tables are not known.
    """
    pair = _pair(record, databases) if isinstance(record, Mapping) else None
    return str(pair[0]) if pair else None


def _pair(record: Mapping[str, Any], databases: Databases) -> tuple[Any, Any] | None:
    """Return a task's question and answer; None for a record of another kind."""
    if "db_id" in record and "question" in record:
        tables = "".join(
            f"table named {name} with columns {columns}, "
            for name, columns in databases.tables(str(record["db_id"])).items()
        )
        question = f"The SQL database has {tables}Question: {record['question']}"
        return question, record.get("query")
    if "question" in record:
        return record["question"], record.get("answer")
    documentation = next((record[name] for name in _DOCUMENTATION if name in record), None)
    if documentation is None:
        return None
    return documentation, next((record[name] for name in _CODE if name in record), None)


class Databases:
    """The tables of databases, looked up when they are first asked for.

    Args:
        place: Spider's tables.json, or the folder of its databases, each
            <db_id>/<db_id>.sqlite; None if nobody said.
    """

    def __init__(self, place: Path | None) -> None:
        self.place = place.expanduser() if place else None
        self._known: dict[str, Tables] | None = None

    def tables(self, name: str) -> Tables:
        """Return the columns of each table of a database.

        Raises:
            UsageError: if it is not there.
        """
        if self.place is None:
            raise UsageError(
                f"a question about the database {name}, but no tables of databases",
                "--schemas tables.json, or the folder of the databases",
            )
        if self._known is None:
            self._known = {} if self.place.is_dir() else _listed(self.place)
        if name not in self._known and self.place.is_dir():
            self._known[name] = _looked_up(self.place / name / f"{name}.sqlite")
        if name not in self._known:
            raise UsageError(
                f"{self.place} has no database {name}", "name the schemas that belong to the data"
            )
        return self._known[name]


def _listed(path: Path) -> dict[str, Tables]:
    """Read the databases of a tables.json."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        return {item["db_id"]: _tables(item) for item in listed}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(
            f"{path}: no list of databases: {type(error).__name__}: {error}",
            'expected [{"db_id", "table_names_original", "column_names_original"}]',
        ) from error


def _tables(item: Mapping[str, Any]) -> Tables:
    names = item["table_names_original"]
    tables: Tables = {name: [] for name in names}
    for table, column in item["column_names_original"]:
        if table >= 0:  # below it is *, of all tables
            tables[names[table]].append(column)
    return tables


def _looked_up(path: Path) -> Tables:
    """Read the tables of an SQLite file."""
    if not path.is_file():
        raise UsageError(
            f"{path}: no such database", "--schemas tables.json, or the folder of the databases"
        )
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as base:
            rows = base.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            return {
                name: [row[1] for row in base.execute(f'PRAGMA table_info("{name}")')]
                for (name,) in rows
            }
    except sqlite3.Error as error:
        raise UsageError(f"{path}: not readable as an SQLite database: {error}") from error
