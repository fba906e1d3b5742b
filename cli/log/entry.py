"""A conversation in the log, and its messages."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from nfox.text.conversation_file import FORMAT

from ..display.excerpt import excerpt

_DIGITS = 18  # of the longest id that is looked for
_TITLE_CELLS = 60  # of the first question that stand for a title


class Row(NamedTuple):
    """A message as it stands in the log.

    Args:
        role: of the message.
        content: its text.
        ids: the token ids of a reply as a JSON list, where they are known.
        made: how a reply was made, as JSON: its method, finish, sources and numbers.
    """

    role: str
    content: str
    ids: str | None = None
    made: str | None = None

    @property
    def sources(self) -> list[tuple[int, str]]:
        """The sources of its text, as `source_runs` returns them; none where they are not known."""
        return [
            (length, letter) for length, letter in json.loads(self.made or "{}").get("sources", ())
        ]


@dataclass(frozen=True)
class Entry:
    """A conversation in the log.

    Args:
        id: the number that it goes by; none is used twice.
        version: how often it was written.
        begun: when it began, in seconds since 1970.
        changed: when it was written last.
        model: the name of the model that answered last.
        template: the name of the conversation template.
        title: the one that it was given, or the beginning of its first question.
        questions: how many questions it has.
        rows: its messages; none where it was only listed.
    """

    id: int
    version: int
    begun: float
    changed: float
    model: str
    template: str
    title: str
    questions: int
    rows: tuple[Row, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the conversation as `nfox.Conversation.save` writes one, with how each reply was
        made besides.
        """
        messages = [
            {"role": row.role, "content": row.content}
            | {name: json.loads(text) for name, text in _named(row) if text is not None}
            for row in self.rows
        ]
        head = {"format": FORMAT, "model": self.model, "template": self.template}
        return head | {"title": self.title, "begun": self.begun, "messages": messages}


def id_of(text: str) -> int | None:
    """Return the id that a text names; None for what names none."""
    return int(text) if text.isdecimal() and len(text) <= _DIGITS else None


def _named(row: Row) -> tuple[tuple[str, str | None], ...]:
    return (("ids", row.ids), ("made", row.made))


def entry_of(values: tuple[Any, ...]) -> Entry:
    """Return the conversation of a row of `database`'s query."""
    number, version, begun, changed, model, template, title, is_question, questions = values
    title = title_of(title) if is_question else " ".join(title.split())
    return Entry(number, version, begun, changed, model, template, title, questions)


def title_of(question: str) -> str:
    """Return what stands for the title of a conversation that was given none.

    Args:
        question: the first one.
    """
    return excerpt(question, _TITLE_CELLS)
