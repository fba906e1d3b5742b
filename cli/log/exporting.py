"""Conversations of the log as texts in several formats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nfox.controls import json_text
from nfox.errors import UsageError

if TYPE_CHECKING:
    from ..chat.exported import ExportedConversation
    from .entry import Entry


def exported(entries: Sequence[Entry], format: str) -> str:
    """Return conversations as a text.

    Args:
        entries: the conversations, with their messages; one alone stands for itself in JSON.
        format: one of the formats of `chat.exported`, or "fastchat" for the layout that FastChat
            trains on, which is ShareGPT's.

    Raises:
        UsageError: if there are several where a document holds one.
    """
    from ..chat.exported import export as export_document

    if format == "fastchat":
        return json_text([_fastchat(entry) for entry in entries], indent=1) + "\n"
    if format == "json":
        rows = [entry.to_json() for entry in entries]
        return json_text(rows[0] if len(rows) == 1 else rows, indent=1) + "\n"
    if len(entries) > 1:
        raise UsageError(f"{format} holds one conversation", "json and fastchat hold several")
    return export_document(_document(entries[0]), format)


def _document(entry: Entry) -> ExportedConversation:
    """Return a conversation as it is exported, with the sources of its replies."""
    from nfox.text.messages import Message

    from ..chat.exported import ExportedConversation

    messages = [Message(row.role, row.content) for row in entry.rows]
    sources = [row.sources for row in entry.rows]
    return ExportedConversation(messages, entry.model, entry.template, sources, entry.title)


_SPEAKERS = {"user": "human", "assistant": "gpt"}


def _fastchat(entry: Entry) -> dict[str, object]:
    """Return a conversation as FastChat's training reads it: the system message stands beside the
    turns, among which it knows two speakers.
    """
    systems = [row.content for row in entry.rows if row.role == "system"]
    said = [row for row in entry.rows if row.role != "system"]
    turns = [{"from": _SPEAKERS.get(row.role, row.role), "value": row.content} for row in said]
    system = {"system": "\n\n".join(systems)} if systems else {}
    return {"id": f"nfox-{entry.id}", **system, "conversations": turns}
