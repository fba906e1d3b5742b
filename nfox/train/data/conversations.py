"""Conversations to learn from: ShareGPT's layout, the chat layout and bare lists of its messages
(as Medusa's create_data.py writes them), from files or from the hub.

What is malformed is left out and counted, never a crash in the third hour.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nfox.errors import UsageError
from nfox.files.records import records
from nfox.text.messages import Message

LAYOUTS = (
    '{"conversations": [{"from": "human", "value": "..."}]}, '
    '{"messages": [{"role": "user", "content": "..."}]} or [{"role": "user", "content": "..."}]'
)
_SPEAKERS = {"USER": "user", "SYSTEM": "assistant"}
_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
}


@dataclass(frozen=True)
class Conversations:
    """What was read.

    Args:
        kept: conversations: a system message or none, then user and assistant in turns, a reply
            at the end; or, where replies are made anew, the user's turns alone.
        cut: how many of them had something else at their beginning or end, which was cut off.
        skipped: how many records gave none.
        unanswered: how many records have turns, but none of an assistant.
        empty: how many conversations were left out because their first question is empty.
        long: how many were left out because it is too long.
    """

    kept: list[list[Message]]
    cut: int = 0
    skipped: int = 0
    unanswered: int = 0
    empty: int = 0
    long: int = 0

    def describe(self) -> str:
        """Say in one line how many there are, and what was left out."""
        odd = [
            (self.cut, "cut to whole turns"),
            (self.unanswered, "without a reply"),
            (self.skipped, "skipped as malformed"),
            (self.empty, "left out with an empty question"),
            (self.long, "left out with too long a question"),
        ]
        left = "".join(f", {count} {what}" for count, what in odd if count)
        return f"{len(self.kept)} conversations{left}"


def read(source: str, cache_dir: str | None = None, *, replies: bool = True) -> Conversations:
    """Read conversations.

    Args:
        source: see `nfox.files.records`.
        cache_dir: where a download from the hub is kept.
        replies: whether they are needed; without them the user's turns alone are read.

    Raises:
        UsageError: if there is nothing of that name, or nothing in it to learn from.
    """
    return some(source, gather(records(source, cache_dir), replies=replies), replies=replies)


def some(
    source: str, found: Conversations, *, replies: bool = True, layouts: str = LAYOUTS
) -> Conversations:
    """Return what was found, if it is anything.

    Args:
        source: where it was found.
        found: in it.
        replies: see `read`.
        layouts: that were expected.

    Raises:
        UsageError: if it is nothing.
    """
    if not found.kept:
        wanted = "a reply to learn from" if replies else "a question"
        raise UsageError(
            f"{source}: no conversation with {wanted} ({found.describe()})", f"expected {layouts}"
        )
    return found


def gather(records: Iterable[Any], *, replies: bool = True) -> Conversations:
    """Bring records into one shape, counting what does not have it.

    Args:
        records: in any of the layouts.
        replies: see `read`.
    """
    kept: list[list[Message]] = []
    cut = skipped = unanswered = 0
    for record in records:
        messages, whole = normalise(record) if replies else _questions(record)
        if messages:
            kept.append(messages)
            cut += not whole
        elif replies and _unanswered(record):
            unanswered += 1
        else:
            skipped += 1
    return Conversations(kept, cut, skipped, unanswered)


def _questions(record: Any) -> tuple[list[Message], bool]:
    """Return a record's system message and user's turns, up to what is not understood, and whether
    that is all of them.
    """
    turns = _turns(record)
    known = list(itertools.takewhile(lambda turn: turn is not None, turns))
    kept = [turn for turn in known if turn and turn.role == "user"]
    system = [turn for turn in known[:1] if turn and turn.role == "system"]
    return system + kept if kept else [], len(known) == len(turns)


def _unanswered(record: Any) -> bool:
    """Whether a record is well formed, but for the reply that it lacks."""
    turns = _turns(record)
    return bool(turns) and all(turn and turn.role != "assistant" for turn in turns)


def normalise(record: Any) -> tuple[list[Message], bool]:
    """Return a record's conversation, [] if it has none, and whether that is all of it.

    What comes before the first user message (but for a system message) goes, and so does all from
    the first turn on that is not the other side's, and a question at the end that nobody answers.
    """
    turns = _turns(record)
    kept = turns[:1] if turns and turns[0] and turns[0].role == "system" else []
    rest = turns[len(kept) :]
    while rest and (rest[0] is None or rest[0].role != "user"):
        rest = rest[1:]
    for number, turn in enumerate(rest):
        if turn is None or turn.role != ("user", "assistant")[number % 2]:
            break
        kept.append(turn)
    while kept and kept[-1] and kept[-1].role != "assistant":
        kept.pop()
    return [turn for turn in kept if turn], len(kept) == len(turns)


def _turns(record: Any) -> list[Message | None]:
    """Return the turns of a record in any layout; None for one that is not understood."""
    listed = record
    if isinstance(record, dict):
        listed = record.get("conversations") or record.get("messages") or record.get("turns")
    return [_turn(item) for item in listed] if isinstance(listed, list) else []


def _turn(item: Any) -> Message | None:
    if not isinstance(item, dict):
        return None
    if "utterance" in item:  # the Schema-Guided Dialogue dataset
        item = {"role": _SPEAKERS.get(str(item.get("speaker"))), "content": item["utterance"]}
    role, text = item.get("from", item.get("role")), item.get("value", item.get("content"))
    if not isinstance(text, str) or not isinstance(role, str) or role not in _ROLES:
        return None
    return Message(_ROLES[role], text)
