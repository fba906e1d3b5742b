"""Self-distillation data: the human turns of a dataset, answered by the target itself.

Heads learn to foretell their target, so they learn best from its own words. The conversations are
replayed turn by turn, many at a time: decoding them one by one would take hours.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nfox.files.jsonl import WorkShare, append, finished_ids, locked
from nfox.text.messages import Message
from nfox.train.data.conversations import Conversations
from nfox.train.data.local_answers import Answerer


@dataclass
class Replayed:
    """What came of conversations.

    Args:
        counts: how many were "kept" whole, "cut" where a reply failed or did not fit, "failed" at
            the first turn, and were there "before".
        reason: why the last one failed or was cut.
    """

    counts: Counter[str] = field(default_factory=Counter)
    reason: str = ""


def replay(
    conversations: Conversations,
    answerer: Answerer,
    out: Path,
    *,
    batch: int = 16,
    share: WorkShare | None = None,
    on_done: Callable[[int], None] = lambda count: None,
) -> Replayed:
    """Answer the human turns of every conversation, and add each finished one to a file.

    Args:
        conversations: whose human turns are asked; their own replies are dropped.
        answerer: who answers.
        out: JSON lines {"id", "messages"}; conversations that are there already are skipped.
        batch: how many at a time.
        share: of several processes; all of them by default.
        on_done: told how many more are finished.
    """
    share = share or WorkShare()
    with locked(out):
        known = finished_ids(out)
    mine = share.of(len(conversations.kept))
    todo = [number for number in mine if str(number) not in known]
    done = Replayed(Counter(before=len(mine) - len(todo)))
    on_done(len(mine) - len(todo))
    # Alike in length, so that a batch is little padding and ends at about the same turn.
    todo.sort(key=lambda number: _length(conversations.kept[number]))
    for start in range(0, len(todo), batch):
        numbers = todo[start : start + batch]
        for number, made, reason in _converse([conversations.kept[n] for n in numbers], answerer):
            done.counts["failed" if not made else "cut" if reason else "kept"] += 1
            done.reason = reason or done.reason
            if made:
                _add(out, numbers[number], made)
        on_done(len(numbers))
    return done


def _length(messages: Sequence[Message]) -> tuple[int, int]:
    return len(messages), sum(len(m.content) for m in messages)


def _converse(
    asked: Sequence[Sequence[Message]], answerer: Answerer
) -> Iterator[tuple[int, list[Message], str]]:
    """Yield each conversation's number, what came of it, and why that is not all of it."""
    made: list[list[Message]] = [[m for m in one[:1] if m.role == "system"] for one in asked]
    questions = [[m for m in one if m.role == "user"] for one in asked]
    going, reasons = list(range(len(asked))), [""] * len(asked)
    for turn in range(max(map(len, questions))):
        going = [n for n in going if turn < len(questions[n]) and not reasons[n]]
        for n in going:
            made[n].append(questions[n][turn])
        answers = answerer.answer([made[n] for n in going])
        for n, reply in zip(going, answers, strict=True):
            if isinstance(reply, str):
                made[n].pop()
                reasons[n] = reply
            else:
                made[n].append(reply)
    for n, messages in enumerate(made):
        replied = any(m.role == "assistant" for m in messages)
        yield n, messages if replied else [], reasons[n]


def _add(out: Path, number: int, messages: Sequence[Message]) -> None:
    turns = [{"role": m.role, "content": m.content} for m in messages]
    append(out, json.dumps({"id": str(number), "messages": turns}, ensure_ascii=False) + "\n")
