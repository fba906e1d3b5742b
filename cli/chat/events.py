"""Replies as JSON lines, for programs: start, delta, step, end. Schema "nfox.chat/1"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nfox.controls import json_text
from nfox.errors import NfoxError
from nfox.text.pieces import source_runs, step_runs
from nfox.version import __version__

from ..printing import say_json

if TYPE_CHECKING:
    from nfox.conversation import Conversation
    from nfox.decoding.generate import Step
    from nfox.engine import Engine
    from nfox.reply_stream import ReplyStream
    from nfox.text.pieces import Piece

SCHEMA = "nfox.chat/1"

Event = dict[str, Any]


def write(event: Event) -> None:
    """Write an event to stdout as one line of JSON, and flush it."""
    say_json(json_text(event) + "\n")


def start(engine: Engine) -> Event:
    """Return the first event, which says what model and method answer."""
    head = {"event": "start", "schema": SCHEMA, "version": __version__}
    return head | asdict(engine.summary())


def reply(stream: ReplyStream, *, steps: bool) -> Iterator[Event]:
    """Yield a reply as events, of which the last one holds the numbers.

    Args:
        stream: the reply on its way.
        steps: add an event for each step.
    """
    for update in stream.updates():
        if update.pieces:
            yield _delta(update.pieces)
        if steps and update.step is not None:
            yield _step(update.step)
    whole_reply, stats = stream.reply, stream.reply.stats
    yield {
        "event": "end",
        "finish_reason": whole_reply.finish,
        "text": whole_reply.text,
        "usage": {
            "prompt_tokens": stats.prompt_tokens,
            "completion_tokens": stats.tokens,
            "completion_tokens_details": {"reasoning_tokens": stats.thought_tokens},
        },
        "timings": {
            **stats.timings(),
            "draft_n": stats.drafted,
            "draft_n_accepted": stats.accepted,
        },
        "spec": stats.spec(whole_reply.method) | {"lengths": stats.lengths},
    }


def left_out(conversation: Conversation) -> Event:
    """Return the event that says how many of the oldest turns the next reply does not read."""
    context = conversation.engine.max_context
    return {"event": "left_out", "turns": conversation.left_out, "max_context": context}


def failure(error: NfoxError) -> Event:
    """Return the event of a request that could not be answered."""
    return {
        "event": "error",
        "message": error.message,
        "hint": error.hint,
        "code": error.code,
    }


def _delta(pieces: tuple[Piece, ...]) -> Event:
    return {
        "event": "delta",
        "text": "".join(piece.text for piece in pieces),
        "runs": source_runs(pieces),
        "steps": step_runs(pieces),
    }


def _step(step: Step) -> Event:
    return {
        "event": "step",
        "tokens": step.tokens,
        "sources": step.sources,
        "drafted": step.tree.tokens[1:],
        "parents": step.tree.parents[1:],
        "path": step.verdict.path[1:],
        "ms": {part: round(seconds * 1e3, 3) for part, seconds in vars(step.times).items()},
        **({"choice": step.choice} if step.choice else {}),
    }
