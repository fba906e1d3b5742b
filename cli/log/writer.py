"""What one chat writes to the log of conversations."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from nfox.text.pieces import Piece, source_runs, step_runs

from .entry import Entry, Row
from .messages import write_messages

if TYPE_CHECKING:
    import sqlite3

    from nfox.conversation import Conversation
    from nfox.reply import Reply
    from nfox.text.messages import Message

    from .database import ConversationLog


class LogWriter:
    """Keeps in the log what one conversation has become: whatever was asked, taken back, answered
    again or gone on with, the messages in the log are made those of the conversation.

    A conversation that somebody else has written meanwhile is left to them: it goes on in another.

    Args:
        log: the log.
    """

    def __init__(self, log: ConversationLog) -> None:
        self.log = log
        self._id: int | None = None
        self._version = 0
        self._rows: tuple[Row, ...] = ()

    @property
    def number(self) -> int | None:
        """The id of the conversation in the log; None as long as nothing of it is there."""
        return self._id

    def begin(self) -> None:
        """Write to another, new conversation from now on."""
        self._id, self._version, self._rows = None, 0, ()

    def go_on_with(self, entry: Entry) -> None:
        """Write to a conversation of the log from now on.

        Args:
            entry: the conversation, with its messages.
        """
        self._id, self._version, self._rows = entry.id, entry.version, entry.rows

    def keep_question(self, conversation: Conversation) -> None:
        """Write a question that is about to be answered, so that nothing that ends the program
        loses it.

        Raises:
            NfoxError: if it cannot be written.
        """
        question, before = conversation.asked[-1], conversation.messages
        if question.role == "user" and not any(question is message for message in before):
            before = before if conversation.history else conversation.asked[:-1]
            self._keep(conversation, [*before, question])

    def keep(
        self,
        conversation: Conversation,
        reply: Reply | None = None,
        pieces: Sequence[Piece] = (),
        known: Sequence[Piece] = (),
    ) -> None:
        """Write the messages of a conversation.

        Args:
            conversation: it.
            reply: the reply that has just ended, with which the last message ends.
            pieces: the text of this reply.
            known: the text of the last message, which may have begun before this reply; none where
                its sources are not known.

        Raises:
            NfoxError: if they cannot be written.
        """
        made = "" if reply is None else _made(reply, pieces, known)
        is_answered = reply is None or reply.ids or reply.text or reply.finish != "interrupt"
        if is_answered or conversation.history:
            self._keep(conversation, conversation.messages, made if reply and reply.text else "")
        elif not any(conversation.asked[-1] is message for message in conversation.messages):
            self._keep(conversation, [])  # what is there was asked before, and is written elsewhere

    def _keep(
        self,
        conversation: Conversation,
        messages: Sequence[Message],
        made: str = "",
    ) -> None:
        shift = _opening(self._rows) - _opening(messages)  # a system message came, or went
        rows = [self._row(at + shift, message) for at, message in enumerate(messages)]
        if made and rows and rows[-1].role == "assistant":
            rows[-1] = rows[-1]._replace(made=made)
        engine, empty = conversation.engine, all(row.role == "system" for row in rows)
        if empty and self._id is None:
            return
        with self.log.transaction() as connection:
            if empty:
                self._remove(connection)
                number, version = None, 0
            else:
                number, same = self._claim(connection, rows)
                version = self._version + 1 if number == self._id else 1
                connection.execute(
                    "UPDATE conversations SET version = ?, changed = ?, model = ?, template = ?"
                    " WHERE id = ?",
                    (version, time.time(), engine.model.name, engine.template.name, number),
                )
                write_messages(connection, number, rows, same)
        self._id, self._version = number, version
        self._rows = () if number is None else tuple(rows)

    def _claim(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> tuple[int, int]:
        """Return the id to write to, and how many of the rows stand there already."""
        mine = connection.execute(
            "SELECT 1 FROM conversations WHERE id = ? AND version = ?", (self._id, self._version)
        )
        if self._id is not None and mine.fetchone():
            pairs = zip(self._rows, rows, strict=False)
            return self._id, sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        new = connection.execute(
            "INSERT INTO conversations (begun, changed) VALUES (?, 0)", (time.time(),)
        )
        return new.lastrowid or 0, 0

    def _remove(self, connection: sqlite3.Connection) -> None:
        """Remove a conversation of which nothing is left."""
        connection.execute(
            "DELETE FROM conversations WHERE id = ? AND version = ?", (self._id, self._version)
        )

    def _row(self, at: int, message: Message) -> Row:
        """Return a message for the log, with how it was made if it stands there already."""
        ids = None if message.ids is None else json.dumps(message.ids)
        row = Row(message.role, message.content, ids)
        before = self._rows[at] if 0 <= at < len(self._rows) else row
        return row._replace(made=before.made) if before[:2] == row[:2] else row


def _opening(messages: Sequence[Message | Row]) -> int:
    """Return how many system messages there are, which stand first."""
    return sum(message.role == "system" for message in messages)


def _made(reply: Reply, pieces: Sequence[Piece], known: Sequence[Piece]) -> str:
    """Return how a reply was made, as JSON. One that went on with another has the sources of both,
    and the steps of its own part at the end of the text.
    """
    made: dict[str, Any] = {
        "finish_reason": reply.finish,
        "sources": source_runs(known),
        "steps": step_runs(pieces),
        "timings": reply.timings,
        "spec": reply.stats.spec(reply.method) | {"lengths": reply.stats.lengths},
    }
    return json.dumps(made)
