"""Self-distillation data: the user's messages of a dataset, answered by the target itself.

Heads learn to predict their target's tokens, so they learn best from its own replies. The
conversations are answered turn by turn, many at a time: one by one would take hours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nfox.controls import json_text
from nfox.files.jsonl import WorkShare, append_lines, finished_ids, locked
from nfox.text.messages import Message
from nfox.train.data.answerer import Answerer
from nfox.train.data.conversations import ConversationDataset


@dataclass
class DistillCounts:
    """How many conversations of a dataset were answered.

    Args:
        counts: the numbers of conversations that were "kept" whole, "cut" where a reply failed or
            did not fit, "failed" at the first turn, or were in the file "before".
        last_error: why the last conversation failed or was cut.
    """

    counts: Counter[str] = field(default_factory=Counter)
    last_error: str = ""


def self_distill(
    dataset: ConversationDataset,
    answerer: Answerer,
    out: Path,
    *,
    batch: int = 16,
    share: WorkShare | None = None,
    on_done: Callable[[int], None] = lambda count: None,
) -> DistillCounts:
    """Answer the user's messages of every conversation, and append each finished one to a file.

    Args:
        dataset: the conversations, whose own replies are dropped.
        answerer: the answerer of the messages.
        out: JSON lines {"id", "messages"}; conversations that are there already are skipped.
        batch: the number of conversations that are answered at a time.
        share: this process's share of the conversations; all of them by default.
        on_done: is called with the number of conversations that were finished since the last call.
    """
    share = share or WorkShare()
    conversations = dataset.conversations
    with locked(out):
        written = finished_ids(out)
    indices = share.of(len(conversations))
    pending = [index for index in indices if str(index) not in written]
    result = DistillCounts(Counter(before=len(indices) - len(pending)))
    on_done(len(indices) - len(pending))
    # Alike in length, so that a batch is little padding and ends at about the same turn.
    pending.sort(key=lambda index: _length(conversations[index]))
    for start in range(0, len(pending), batch):
        batch_indices = pending[start : start + batch]
        answer_batch({n: conversations[n] for n in batch_indices}, answerer, out, result)
        on_done(len(batch_indices))
    return result


def answer_batch(
    conversations: Mapping[int, Sequence[Message]],
    answerer: Answerer,
    out: Path,
    result: DistillCounts,
) -> None:
    """Answer the user's messages of some conversations, and append those with a reply to a file.

    Args:
        conversations: the conversations by the number that becomes their id.
        answerer: the answerer of the messages.
        out: JSON lines {"id", "messages"}.
        result: counts how each of them ended.
    """
    answered = _answer_all([*conversations.values()], answerer)
    for number, (messages, error) in zip(conversations, answered, strict=True):
        result.counts["failed" if not messages else "cut" if error else "kept"] += 1
        result.last_error = error or result.last_error
        if messages:
            _append(out, number, messages)


def _length(messages: Sequence[Message]) -> tuple[int, int]:
    return len(messages), sum(len(m.content) for m in messages)


def _answer_all(
    conversations: Sequence[Sequence[Message]], answerer: Answerer
) -> Iterator[tuple[list[Message], str]]:
    """Yield each conversation with new replies, [] where there is none, and the error that ended
    it early, "" if none did.
    """
    answered = [[m for m in messages[:1] if m.role == "system"] for messages in conversations]
    questions = [[m for m in messages if m.role == "user"] for messages in conversations]
    active, errors = list(range(len(conversations))), [""] * len(conversations)
    for turn in range(max(map(len, questions))):
        active = [n for n in active if turn < len(questions[n]) and not errors[n]]
        for n in active:
            answered[n].append(questions[n][turn])
        answers = answerer.answer([answered[n] for n in active])
        for n, reply in zip(active, answers, strict=True):
            if isinstance(reply, str):
                answered[n].pop()
                errors[n] = reply
            else:
                answered[n].append(reply)
    for messages, error in zip(answered, errors, strict=True):
        has_reply = any(m.role == "assistant" for m in messages)
        yield messages if has_reply else [], error


def _append(out: Path, index: int, messages: Sequence[Message]) -> None:
    turns = [{"role": m.role, "content": m.content} for m in messages]
    append_lines(out, json_text({"id": str(index), "messages": turns}) + "\n")
