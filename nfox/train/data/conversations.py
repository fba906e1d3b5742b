"""Conversations to train on, in the layouts of `nfox.train.data.layouts`, from files or from the
hub.

A malformed record is left out and counted, so that no training fails on it hours later.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nfox.errors import UsageError
from nfox.files.records import read_records
from nfox.text.messages import Message
from nfox.train.data.layouts import LAYOUTS, Record, parse_record

_NAMES = 8  # of what was not read, at most; a broken file may have thousands


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
        unread: what records say and was not read, each name with the number of its records.
    """

    conversations: list[list[Message]]
    cut: int = 0
    malformed: int = 0
    unanswered: int = 0
    empty_questions: int = 0
    long_questions: int = 0
    unread: Counter[str] = field(default_factory=Counter)

    def describe(self) -> str:
        """Return one line with the number of conversations, of those that were left out, and of
        what was not read.
        """
        counts = [
            (self.cut, "cut to whole turns"),
            (self.unanswered, "without a reply"),
            (self.malformed, "skipped as malformed"),
            (self.empty_questions, "left out with an empty question"),
            (self.long_questions, "left out with too long a question"),
        ]
        left_out = "".join(f", {count} {reason}" for count, reason in counts if count)
        names = [f"{name} ({count})" for name, count in self.unread.most_common(_NAMES)]
        more = [f"{len(self.unread) - _NAMES} others"] if len(self.unread) > _NAMES else []
        unread = f"; not read: {', '.join([*names, *more])}" if names else ""
        return f"{len(self.conversations)} conversations{left_out}{unread}"


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
    unread: Counter[str] = Counter()
    for record in map(parse_record, records):
        messages, complete = (_whole_turns if replies else _questions)(record.turns)
        unread.update(record.unread)
        if messages and (not replies or _teaches(messages)):
            conversations.append(messages)
            cut += not complete
        elif replies and (messages or _is_unanswered(record)):
            unanswered += 1
            unread.update(["replies of weight 0 alone"] if messages else [])
        else:
            malformed += 1
    return ConversationDataset(conversations, cut, malformed, unanswered, unread=unread)


def _teaches(messages: Sequence[Message]) -> bool:
    """Return whether any reply of a conversation is to be learned."""
    return any(message.role == "assistant" and message.supervised for message in messages)


def _questions(turns: Sequence[Message | None]) -> tuple[list[Message], bool]:
    """Return the system message and the user's messages of a record up to the first malformed
    turn, and whether there is no malformed one.
    """
    well_formed = list(itertools.takewhile(lambda turn: turn is not None, turns))
    questions = [turn for turn in well_formed if turn and turn.role == "user"]
    system = [turn for turn in well_formed[:1] if turn and turn.role == "system"]
    return system + questions if questions else [], len(well_formed) == len(turns)


def _is_unanswered(record: Record) -> bool:
    """Return whether a record is well formed, but for the reply that it lacks."""
    return bool(record.turns) and all(turn and turn.role != "assistant" for turn in record.turns)


def normalise(record: Any) -> tuple[list[Message], bool]:
    """Return the conversation of a record, [] if it has none, and whether that is all of it.

    Cut off are the turns before the first user message (but for a system message), all turns from
    the first one on that is malformed or does not alternate, and questions at the end that have no
    reply.
    """
    return _whole_turns(parse_record(record).turns)


def _whole_turns(turns: Sequence[Message | None]) -> tuple[list[Message], bool]:
    """Return the messages that `normalise` keeps, and whether these are all turns."""
    messages = list(turns[:1]) if turns and turns[0] and turns[0].role == "system" else []
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
