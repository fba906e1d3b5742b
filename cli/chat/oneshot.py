"""Answers without a chat: one to a prompt, or one to each line of JSON on stdin."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from nfox.conversation import Conversation
from nfox.errors import NfoxError, UsageError

from ..display.header import adapter_hint, exactness
from ..display.theme import make_screen
from ..errors import INTERRUPTED
from ..options.groups import DisplayArguments
from . import events
from .app import ChatApp
from .interrupt import interruptible

if TYPE_CHECKING:
    from nfox.engine import Engine


def answer_text(engine: Engine, prompt: str, display: DisplayArguments) -> None:
    """Write the answer to a prompt to stdout, and its numbers to stderr if that is a terminal."""
    screen = make_screen(display)
    stats = display.stats and (display.verbose > 0 or sys.stderr.isatty())
    notes = Console(stderr=True, highlight=False, markup=False, no_color=screen.console.no_color)
    app = ChatApp(Conversation(engine), screen, replace(display, stats=stats), notes)
    if display.verbose and (warning := exactness(engine)) != "lossless":
        app.say(warning)
    if not display.quiet and (hint := adapter_hint(engine)):
        app.say(hint)
    app.show_reply(app.conversation.send(prompt))
    _exit_if_interrupted(engine)


def answer_json(engine: Engine, prompt: str, display: DisplayArguments) -> None:
    """Write the answer to a prompt to stdout as events, which are lines of JSON."""
    events.write(events.start(engine))
    messages = [{"role": "user", "content": prompt}]
    try:
        with interruptible(engine):
            for event in events.reply(engine, engine.updates(messages), steps=display.verbose > 1):
                events.write(event)
    except NfoxError as error:
        events.write(events.failure(error))
        raise
    _exit_if_interrupted(engine)


def _exit_if_interrupted(engine: Engine) -> None:
    """Exit with the code of an interrupt if the last reply was interrupted."""
    if engine.reply.finish == "interrupt":
        raise typer.Exit(INTERRUPTED)


def serve_lines(engine: Engine, display: DisplayArguments, *, history: bool) -> None:
    """Read lines of JSON from stdin up to its end, and answer each with events.

    A line is a message, {"role": "user", "content": ...}, or {"cmd": "reset"}.

    Args:
        engine: the engine that answers.
        display: whether there are events for steps.
        history: whether a message sees those before it.
    """
    conversation = Conversation(engine, history=history)
    events.write(events.start(engine))
    for line in filter(str.strip, sys.stdin):
        try:
            with interruptible(engine):
                for event in _respond(conversation, _parse(line), display):
                    events.write(event)
        except NfoxError as error:
            events.write(events.failure(error))


def _parse(line: str) -> dict[str, Any]:
    """Return the object that a line of JSON holds; raise UsageError if it holds none."""
    try:
        data = json.loads(line)
    except ValueError as error:
        raise UsageError(f"not a line of JSON: {error}") from None
    if not isinstance(data, dict):
        raise UsageError(f"expected a JSON object, got {type(data).__name__}")
    return data


def _respond(
    conversation: Conversation, data: dict[str, Any], display: DisplayArguments
) -> Iterator[events.Event]:
    """Yield the events that answer a line of JSON; raise UsageError for a line of another kind."""
    content = data.get("content")
    if data == {"cmd": "reset"}:
        conversation.reset()
        yield {"event": "reset"}
    elif data.get("role") == "system" and isinstance(content, str):
        conversation.system = content
        yield {"event": "system"}
    elif data.get("role") == "user" and isinstance(content, str):
        steps = display.verbose > 1
        yield from events.reply(conversation.engine, conversation.send(content), steps=steps)
    else:
        raise UsageError(
            'expected {"role": "user" or "system", "content": TEXT} or {"cmd": "reset"}',
            f"got {json.dumps(data)[:200]}",
        )
