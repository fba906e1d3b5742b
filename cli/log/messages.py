"""The messages of a conversation, as they get into the log."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from nfox.errors import NfoxError
from nfox.files.reading import read_json

from .entry import Row


def write_messages(
    connection: sqlite3.Connection, number: int, rows: Sequence[Row], same: int = 0
) -> None:
    """Write the messages of a conversation.

    Args:
        connection: the open log.
        number: the conversation's id.
        rows: all of its messages.
        same: how many of the first stand there already.
    """
    connection.execute(
        "DELETE FROM messages WHERE conversation = ? AND number >= ?", (number, same)
    )
    numbered = [(number, at, *row) for at, row in enumerate(rows[same:], same)]
    connection.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?)", numbered)


def take_over(connection: sqlite3.Connection, former: Path) -> None:
    """Write the conversation of a file to the log, and remove the file; one that holds none stays
    as it is.
    """
    try:
        data = read_json(former)
        rows = [
            Row(str(m["role"]), str(m["content"]), json.dumps(m["ids"]) if "ids" in m else None)
            for m in data["messages"]
        ]
        names = (str(data["model"]), str(data["template"]))
    except (NfoxError, LookupError, TypeError):
        return
    changed = former.stat().st_mtime
    number = connection.execute(
        "INSERT INTO conversations (begun, changed, model, template) VALUES (?, ?, ?, ?)",
        (changed, changed, *names),
    ).lastrowid
    write_messages(connection, number or 0, rows)
    connection.commit()
    former.unlink()
