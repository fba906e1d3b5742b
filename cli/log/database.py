"""The log of all conversations: one SQLite file, which only its owner may read.

It is opened for each use and closed behind it, so that chats side by side, a file that was moved
away, and a disk that was full are the matter of one use.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from nfox.errors import NfoxError, UsageError
from nfox.files.reading import describe

from ..state_folder import state_folder, state_path
from .entry import Entry, Row, entry_of
from .messages import take_over

_VERSION = 1
_SCHEMA = (
    """CREATE TABLE conversations (
        id INTEGER PRIMARY KEY AUTOINCREMENT, version INTEGER NOT NULL DEFAULT 0,
        begun REAL NOT NULL, changed REAL NOT NULL,
        model TEXT NOT NULL DEFAULT '', template TEXT NOT NULL DEFAULT '', title TEXT)""",
    """CREATE TABLE messages (
        conversation INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
        number INTEGER NOT NULL, role TEXT NOT NULL, content TEXT NOT NULL, ids TEXT, made TEXT,
        PRIMARY KEY (conversation, number)) WITHOUT ROWID""",
    f"PRAGMA user_version = {_VERSION}",
)
_WAIT = 5.0  # seconds, for another chat that is writing
_ALL = (1 << 63) - 1  # more than there can be


class ConversationLog:
    """The log of all conversations.

    Every method raises NfoxError where the file cannot be used.

    Args:
        path: the file; by default that of this person. It is made at its first use.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or state_path() / "log.db"

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield the open file; what is done to it is done wholly at the end, or not at all.

        Raises:
            NfoxError: in place of any error of the file.
        """
        try:
            with self._opened() as connection, connection:
                connection.execute("BEGIN IMMEDIATE")
                self._make_tables(connection)
                yield connection
        except (sqlite3.Error, OSError, ValueError) as error:
            raise NfoxError(
                f"{self.path}: {describe(error)}", "the log is there; --no-save does without it"
            ) from error

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        if self.path.parent == state_path():
            state_folder()
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        with closing(sqlite3.connect(self.path, timeout=_WAIT)) as connection:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA secure_delete = ON")  # what was deleted is gone
            connection.create_function("holds", 2, _holds, deterministic=True)
            yield connection

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        """Make the tables of a new file, and take over the one conversation that was kept before
        there was a log.
        """
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise ValueError(
                f"a later nfox wrote it (version {version}, this one knows {_VERSION})"
            )
        if version == _VERSION:
            return
        for statement in _SCHEMA:
            connection.execute(statement)
        former = self.path.with_name("last.json")
        if former.is_file():
            take_over(connection, former)

    def entries(self, limit: int | None = None, words: Sequence[str] = ()) -> list[Entry]:
        """Return conversations, the newest first, without their messages.

        Args:
            limit: the most of them; None for all.
            words: each of which must stand in one and the same message, in capitals or not. Words
                are looked for as they are, inside others too: in this size, reading all is quick,
                and it finds what has no spaces between words.
        """
        found = (
            ""
            if not words
            else (
                "WHERE EXISTS (SELECT 1 FROM messages WHERE conversation = c.id"
                + " AND holds(content, ?)" * len(words)
                + ")"
            )
        )
        most = _ALL if limit is None else min(limit, _ALL)
        arguments = [*(word.casefold() for word in words), most]
        with self.transaction() as connection:
            query = f"{_ENTRIES} {found} ORDER BY changed DESC, id DESC LIMIT ?"
            return [entry_of(values) for values in connection.execute(query, arguments)]

    def read(self, number: int | None = None) -> Entry:
        """Return a conversation with its messages.

        Args:
            number: its id; None for the one that was written last.

        Raises:
            UsageError: if there is none.
        """
        order = "ORDER BY changed DESC, id DESC LIMIT 1" if number is None else "WHERE id = ?"
        with self.transaction() as connection:
            found = connection.execute(
                f"{_ENTRIES} {order}", () if number is None else (str(number),)
            ).fetchone()
            if found is None:
                raise _missing(number)
            entry = entry_of(found)
            rows = connection.execute(
                "SELECT role, content, ids, made FROM messages WHERE conversation = ?"
                " ORDER BY number",
                (entry.id,),
            )
            return replace(entry, rows=tuple(Row(*values) for values in rows))

    def retitle(self, number: int, title: str) -> None:
        """Give a conversation a title; "" for the beginning of its first question.

        Raises:
            UsageError: if there is no such conversation.
        """
        self._change("UPDATE conversations SET title = ? WHERE id = ?", number, title or None)

    def delete(self, number: int) -> None:
        """Delete a conversation.

        Raises:
            UsageError: if there is none.
        """
        self._change("DELETE FROM conversations WHERE id = ?", number)

    def _change(self, statement: str, number: int, *values: str | None) -> None:
        with self.transaction() as connection:
            # As a text, which may be a number beyond those that SQLite counts to.
            if not connection.execute(statement, (*values, str(number))).rowcount:
                raise _missing(number)


_ENTRIES = """SELECT id, version, begun, changed, model, template,
    coalesce(title, (SELECT content FROM messages WHERE conversation = c.id AND role = 'user'
        ORDER BY number LIMIT 1), ''), title IS NULL,
    (SELECT count(*) FROM messages WHERE conversation = c.id AND role = 'user')
    FROM conversations AS c"""


def _holds(content: str, word: str) -> bool:
    return word in content.casefold()


def _missing(number: int | None) -> UsageError:
    if number is None:
        return UsageError("there is no conversation in the log yet")
    return UsageError(f"there is no conversation {number} in the log", "nfox log lists them")
