"""Records of published tasks as conversations: GSM8K, Spider and CodeSearchNet (Python), besides
the layouts of `nfox.train.data.conversations`.

A user's message holds the text that the templates cllm-math, cllm-spider and cllm-python expect.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from nfox.errors import UsageError
from nfox.files.reading import read_json, refusing
from nfox.files.records import read_records
from nfox.train.data.conversations import (
    ConversationDataset,
    parse_records,
    require_conversations,
)
from nfox.train.data.layouts import LAYOUTS, has_turns

TASKS = (
    '{"question", "answer"} (GSM8K), {"question", "query", "db_id"} (Spider) '
    'or {"docstring", "code"} (CodeSearchNet)'
)
_FIELDS = ("question", "answer", "query")
_DOCUMENTATION = ("func_documentation_string", "docstring")
_CODE = ("func_code_string", "whole_func_string", "code")
Schema = dict[str, list[str]]
"""The schema of a database: the names of the columns of each table."""


def read_tasks(
    data_path: str,
    schemas: Path | None = None,
    cache_dir: str | None = None,
    *,
    replies: bool = True,
) -> ConversationDataset:
    """Read conversations and tasks; a task becomes a conversation of its question and its answer.

    Args:
        data_path: the file or hub dataset, see `nfox.files.records.read_records`.
        schemas: the schemas of Spider's databases: its tables.json, or the folder of its SQLite
            files.
        cache_dir: the folder of downloads from the hub.
        replies: whether the answers are needed.

    Raises:
        UsageError: if there is no such dataset, no conversation in it, or no schema of a database
            that it names.
    """
    conversations = _conversations(read_records(data_path, cache_dir), schemas)
    dataset = parse_records(conversations, replies=replies)
    layouts = f"{TASKS}, or {LAYOUTS}"
    return require_conversations(data_path, dataset, replies=replies, layouts=layouts)


def _conversations(records: Iterable[Any], schemas: Path | None) -> Iterable[Any]:
    """Yield records, those of tasks as lists of messages."""
    databases = DatabaseSchemas(schemas)
    for record in records:
        is_task = isinstance(record, Mapping) and not has_turns(record)
        pair = _question_and_answer(record, databases) if is_task else None
        if pair is None:
            yield record
            continue
        question, answer = pair
        turns = [{"role": "user", "content": question}]
        # Without an answer, as in a test set, it is still a question.
        turns += [{"role": "assistant", "content": answer}] if answer is not None else []
        beside = {name: value for name, value in record.items() if name not in _FIELDS}
        yield {**beside, "messages": turns}


def task_question(record: Any, databases: DatabaseSchemas) -> str | None:
    """Return the question of a task's record; None for a record of another kind.

    Args:
        record: a record of a file.
        databases: the schemas of Spider's databases.

    Raises:
        UsageError: if there is no schema of a database that the record names.
    """
    pair = _question_and_answer(record, databases) if isinstance(record, Mapping) else None
    return pair[0] if pair and isinstance(pair[0], str) else None


def _question_and_answer(
    record: Mapping[str, Any], databases: DatabaseSchemas
) -> tuple[Any, Any] | None:
    """Return a task's question and answer; None for a record of another kind."""
    if "db_id" in record and isinstance(record.get("question"), str):
        tables = "".join(
            f"table named {name} with columns {columns}, "
            for name, columns in databases.schema(str(record["db_id"])).items()
        )
        question = f"The SQL database has {tables}Question: {record['question']}"
        return question, record.get("query")
    if "question" in record:
        return record["question"], record.get("answer")
    documentation = next((record[name] for name in _DOCUMENTATION if name in record), None)
    if documentation is None:
        return None
    return documentation, next((record[name] for name in _CODE if name in record), None)


class DatabaseSchemas:
    """The schemas of databases, each read when it is first needed.

    Args:
        path: Spider's tables.json, or the folder of its databases, each
            <db_id>/<db_id>.sqlite; None where there is none.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path.expanduser() if path else None
        self._schemas: dict[str, Schema] | None = None

    def schema(self, name: str) -> Schema:
        """Return the names of the columns of each table of a database.

        Args:
            name: the database's name, Spider's db_id.

        Raises:
            UsageError: if there is no schema of that database.
        """
        if self.path is None:
            raise UsageError(
                f"a question about the database {name[:100]}, but no tables of databases",
                "--schemas tables.json, or the folder of the databases",
            )
        if self._schemas is None:
            self._schemas = {} if self.path.is_dir() else _read_tables_json(self.path)
        if name not in self._schemas and self.path.is_dir():
            self._schemas[name] = _read_sqlite(self.path / name / f"{name}.sqlite")
        if name not in self._schemas:
            raise UsageError(
                f"{self.path} has no database {name[:100]}",
                "name the schemas that belong to the data",
            )
        return self._schemas[name]


def _read_tables_json(path: Path) -> dict[str, Schema]:
    """Return the schema of each database in Spider's tables.json."""
    expected = '[{"db_id", "table_names_original", "column_names_original"}]'
    with refusing(f"{path}: no list of databases", expected):
        databases = _DATABASES.validate_python(read_json(path))
        return {database.db_id: _schema(database) for database in databases}


class _Database(BaseModel):
    """The fields of a database in Spider's tables.json that are read."""

    db_id: str
    table_names_original: list[str]
    column_names_original: list[tuple[int, str]]


_DATABASES = TypeAdapter(list[_Database])


def _schema(database: _Database) -> Schema:
    names = database.table_names_original
    schema: Schema = {name: [] for name in names}
    for table, column in database.column_names_original:
        if table >= 0:  # below it is *, of all tables
            schema[names[table]].append(column)
    return schema


def _read_sqlite(path: Path) -> Schema:
    """Return the schema of an SQLite file."""
    if not path.is_file():
        raise UsageError(
            f"{path}: no such database", "--schemas tables.json, or the folder of the databases"
        )
    with (
        refusing(f"{path}: not readable as an SQLite database"),
        closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database,
    ):
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        columns = "SELECT name FROM pragma_table_info(?)"
        return {
            name: [column for (column,) in database.execute(columns, (name,))]
            for (name,) in tables.fetchall()
        }
