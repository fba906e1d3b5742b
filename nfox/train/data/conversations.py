"""Conversations to train on, in ShareGPT's layout, the chat layout, or as bare lists of messages
(as Medusa's create_data.py writes them), from files or from the hub.

A malformed record is left out and counted, so that no training fails on it hours later.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nfox.errors import UsageError
from nfox.files.records import read_records
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
class ConversationDataset:
    """The conversations of a dataset, and how many records were changed or left out.

    Args:
        conversations: lists of messages: a system message or none, then messages of user and
            assistant in turn, a reply at the end. Where no replies are needed, the system message
            and the user's messages alone.
        cut: the number of conversations whose beginning or end was cut off as malformed.
        malformed: the number of records that gave no conversation.
        unanswered: the number of records that are well formed, but without a reply.
        empty_questions: the number of conversations left out because their first question is empty.
        long_questions: the number of conversations left out because it is too long.
    """

    conversations: list[list[Message]]
    cut: int = 0
    malformed: int = 0
    unanswered: int = 0
    empty_questions: int = 0
    long_questions: int = 0

    def describe(self) -> str:
        """Return one line with the number of conversations, and of those that were left out."""
        counts = [
            (self.cut, "cut to whole turns"),
            (self.unanswered, "without a reply"),
            (self.malformed, "skipped as malformed"),
            (self.empty_questions, "left out with an empty question"),
            (self.long_questions, "left out with too long a question"),
        ]
        left_out = "".join(f", {count} {reason}" for count, reason in counts if count)
        return f"{len(self.conversations)} conversations{left_out}"


def read_conversations(
    data_path: str, cache_dir: str | None = None, *, replies: bool = True
) -> ConversationDataset:
    """Read the conversations of a file or hub dataset.

    Args:
        data_path: the file or hub dataset, see `nfox.files.records.read_records`.
        cache_dir: the folder of downloads from the hub.
        replies: whether replies are needed; without them the user's messages alone are read.

    Raises:
        UsageError: if there is no such dataset, or no conversation in it.
    """
    dataset = parse_records(read_records(data_path, cache_dir), replies=replies)
    return require_conversations(data_path, dataset, replies=replies)


def require_conversations(
    data_path: str,
    dataset: ConversationDataset,
    *,
    replies: bool = True,
    layouts: str = LAYOUTS,
) -> ConversationDataset:
    """Return a dataset that has at least one conversation.

    Args:
        data_path: where the dataset was read, for the error.
        dataset: what was read.
        replies: whether replies are needed.
        layouts: the layouts of records that are understood, for the error.

    Raises:
        UsageError: if the dataset has no conversation.
    """
    if not dataset.conversations:
        needed = "a reply to learn from" if replies else "a question"
        raise UsageError(
            f"{data_path}: no conversation with {needed} ({dataset.describe()})",
            f"expected {layouts}",
        )
    return dataset


def parse_records(records: Iterable[Any], *, replies: bool = True) -> ConversationDataset:
    """Return the conversations of records in any of the layouts, and count the others.

    Args:
        records: the records.
        replies: whether replies are needed; without them the user's messages alone are kept.
    """
    conversations: list[list[Message]] = []
    cut = malformed = unanswered = 0
    for record in records:
        messages, complete = normalise(record) if replies else _questions(record)
        if messages:
            conversations.append(messages)
            cut += not complete
        elif replies and _is_unanswered(record):
            unanswered += 1
        else:
            malformed += 1
    return ConversationDataset(conversations, cut, malformed, unanswered)


def _questions(record: Any) -> tuple[list[Message], bool]:
    """Return the system message and the user's messages of a record up to the first malformed
    turn, and whether there is no malformed one.
    """
    turns = _turns(record)
    well_formed = list(itertools.takewhile(lambda turn: turn is not None, turns))
    questions = [turn for turn in well_formed if turn and turn.role == "user"]
    system = [turn for turn in well_formed[:1] if turn and turn.role == "system"]
    return system + questions if questions else [], len(well_formed) == len(turns)


def _is_unanswered(record: Any) -> bool:
    """Return whether a record is well formed, but for the reply that it lacks."""
    turns = _turns(record)
    return bool(turns) and all(turn and turn.role != "assistant" for turn in turns)


def normalise(record: Any) -> tuple[list[Message], bool]:
    """Return the conversation of a record, [] if it has none, and whether that is all of it.

    Cut off are the turns before the first user message (but for a system message), all turns from
    the first one on that is malformed or does not alternate, and questions at the end that have no
    reply.
    """
    turns = _turns(record)
    messages = turns[:1] if turns and turns[0] and turns[0].role == "system" else []
    rest = turns[len(messages) :]
    while rest and (rest[0] is None or rest[0].role != "user"):
        rest = rest[1:]
    for number, turn in enumerate(rest):
        if turn is None or turn.role != ("user", "assistant")[number % 2]:
            break
        messages.append(turn)
    while messages and messages[-1] and messages[-1].role != "assistant":
        messages.pop()
    return [turn for turn in messages if turn], len(messages) == len(turns)


def _turns(record: Any) -> list[Message | None]:
    """Return the turns of a record in any layout, None for a malformed turn."""
    items = record
    if isinstance(record, dict):
        items = record.get("conversations") or record.get("messages") or record.get("turns")
    return [_turn(item) for item in items] if isinstance(items, list) else []


def _turn(item: Any) -> Message | None:
    if not isinstance(item, dict):
        return None
    if "utterance" in item:  # the Schema-Guided Dialogue dataset
        item = {"role": _SPEAKERS.get(str(item.get("speaker"))), "content": item["utterance"]}
    role, text = item.get("from", item.get("role")), item.get("value", item.get("content"))
    if not isinstance(text, str) or not isinstance(role, str) or role not in _ROLES:
        return None
    return Message(_ROLES[role], text)
