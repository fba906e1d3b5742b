"""Answers without a chat: one to a prompt, or one to each line of JSON on stdin."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from nfox.controls import json_text
from nfox.conversation import Conversation
from nfox.errors import NfoxError, UsageError
from nfox.files.reading import json_type, parse_json
from nfox.text.messages import parse_message

from .. import standard_input
from ..display.console import CleanConsole
from ..display.gain import guessed_nothing
from ..display.header import adapter_hint, exactness
from ..display.reply_stats import FINISHES
from ..display.theme import make_screen
from ..errors import INTERRUPTED, in_one_line, report
from ..options.chat import DisplayArguments, SessionArguments
from ..printing import tell
from . import events
from .app import ChatApp
from .compare import compare
from .context_notes import new_conversation
from .interrupt import interruptible
from .repetition import hint, repeats_itself

if TYPE_CHECKING:
    from nfox.engine import Engine
    from nfox.reply import Reply
    from nfox.reply_stream import ReplyStream


_LONGER = {
    "length": "-M N (--max-new-tokens) allows more",
    "context": "a larger --max-context or a shorter prompt leaves more room",
}
_LINES = '{"role": "user" or "system", "content": TEXT} or {"cmd": "reset"}'


def answer_text(
    engine: Engine, prompt: str, display: DisplayArguments, *, compared: bool = False
) -> None:
    """Write the answer to a prompt to stdout, and its numbers to stderr if that is a terminal.

    Args:
        engine: the engine that answers.
        prompt: the question.
        display: how much is shown.
        compared: whether the answer is then decoded without drafting, and what was gained is said.
    """
    screen = make_screen(display)
    stats = display.stats and (display.verbose > 0 or sys.stderr.isatty())
    notes = CleanConsole(stderr=True, no_color=screen.console.no_color)
    app = ChatApp(Conversation(engine), screen, replace(display, stats=stats), notes)
    if display.verbose and (warning := exactness(engine)) != "lossless":
        app.say(warning)
    if not display.quiet and (hint := adapter_hint(engine)):
        app.say(hint)
    stream = app.conversation.send(prompt)
    app.show_reply(stream)
    _exit_if_interrupted(stream.reply)
    if not display.quiet:
        _say_if_cut(engine, stream.reply)
    # Where there is a footer, it says this.
    if not (stats or display.quiet) and (line := guessed_nothing(engine, stream.reply)):
        tell(f"nfox: {line}")
    if compared and app.conversation.last is not None:
        app.say(compare(app, app.conversation.last))


def _say_if_cut(engine: Engine, reply: Reply) -> None:
    """Say on stderr that a reply was cut, and what makes it longer; what ends it where it repeats
    itself.
    """
    if repeats_itself(reply):
        tell(f"nfox: {hint(engine.settings, '--repetition-penalty ')}")
    elif reply.finish in _LONGER:
        cut = FINISHES[reply.finish].format(limit=engine.settings.max_new_tokens)
        tell(f"nfox: {cut}; {_LONGER[reply.finish]}")


def answer_json(engine: Engine, prompt: str, display: DisplayArguments) -> None:
    """Write the answer to a prompt to stdout as events, which are lines of JSON."""
    events.write(events.start(engine))
    try:
        stream = engine.stream(prompt)
        _write_reply(stream, display)
    except NfoxError as error:
        events.write(events.failure(error))
        raise
    _exit_if_interrupted(stream.reply)


def _write_reply(stream: ReplyStream, display: DisplayArguments) -> None:
    """Write a reply to stdout as events, as it grows."""
    with interruptible(stream), stream:
        for event in events.reply(stream, steps=display.verbose > 1):
            events.write(event)


def _exit_if_interrupted(reply: Reply) -> None:
    """Exit with the code of an interrupt if a reply was interrupted."""
    if reply.finish == "interrupt":
        raise typer.Exit(INTERRUPTED)


def serve_lines(engine: Engine, display: DisplayArguments, session: SessionArguments) -> None:
    """Read lines of JSON from stdin up to its end, and answer each with events.

    A line is a message, {"role": "user", "content": ...}, or {"cmd": "reset"}.

    Args:
        engine: the engine that answers.
        display: whether there are events for steps.
        session: whether a message sees those before it, and what a full context does.
    """
    conversation = new_conversation(engine, session, "stop")
    events.write(events.start(engine))
    for line in filter(str.strip, standard_input.lines()):
        try:
            _respond(conversation, _parse(line), display)
        except NfoxError as error:
            events.write(events.failure(error))
        except OSError:  # nobody reads what could be answered
            raise
        except Exception as error:  # of whatever kind: it has cost this line, and nothing else
            report(error)
            events.write(events.failure(NfoxError(in_one_line(error))))


def _parse(line: str) -> dict[str, Any]:
    """Return the object that a line of JSON holds; raise UsageError if it holds none."""
    data = parse_json(line, "a line of stdin")
    if not isinstance(data, dict):
        raise UsageError(f"expected a JSON object, got {json_type(data)}")
    return data


def _respond(conversation: Conversation, data: dict[str, Any], display: DisplayArguments) -> None:
    """Write the events that answer a line of JSON; raise UsageError for a line of another kind."""
    if data == {"cmd": "reset"}:
        conversation.reset()
        events.write({"event": "reset"})
        return
    try:
        message = parse_message(data)
    except ValueError as error:
        raise UsageError(f"expected {_LINES}: {error}", f"got {json_text(data)[:200]}") from error
    if message.role == "assistant":
        raise UsageError(f"expected {_LINES}", f"got {json_text(data)[:200]}")
    if message.role == "system":
        conversation.system = message.content
        events.write({"event": "system"})
    else:
        before, stream = conversation.left_out, conversation.send(message.content)
        if conversation.left_out != before:
            events.write(events.left_out(conversation))
        _write_reply(stream, display)
