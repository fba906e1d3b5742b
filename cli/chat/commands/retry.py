"""Several replies to one question, of which one stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nfox.errors import UsageError

from .registry import command

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..app import ChatApp

_MOST = 99  # replies at once
_EXPECTED = f"expected how many replies, 1 to {_MOST}, or pick and the number of one"


def _words(app: ChatApp) -> Iterable[str]:
    return ("pick", *map(str, app.candidates))


@command("/retry", usage="N | pick K", completions=_words)
def retry(app: ChatApp, argument: str) -> None:
    """Answer N times more; /retry pick K keeps one."""
    first, *rest = argument.split() or [""]
    if first == "pick" and len(rest) == 1 and rest[0].isdecimal():
        _pick(app, int(rest[0]))
        return
    if rest or not (first.isdecimal() and 1 <= int(first) <= _MOST):
        raise UsageError(
            f"{f'/retry {argument}'.strip()}: {_EXPECTED}",
            "for example /retry 3; /regen answers once more, in place of the last reply",
        )
    if not app.conversation.turns:
        raise UsageError("there is nothing to answer again yet")
    if app.engine.settings.sampling.greedy:
        raise UsageError(
            "at temperature 0 every reply to a question is the same",
            "/set temperature=0.7 has them drawn at random",
        )
    _answer(app, int(first))


def _answer(app: ChatApp, count: int) -> None:
    """Answer the last question so many times, and keep all replies to be chosen from; the one that
    there is has the number 0.
    """
    app.candidates = {}
    _note(app, 0)
    for number in range(1, count + 1):
        stream = app.ask(app.conversation.regenerate)
        app.say(f"reply {number} of {count}:")
        if app.show_reply(stream):
            _note(app, number)
        if stream.reply.finish == "interrupt":
            break
    if len(app.candidates) > 1:
        before = ", 0 the one before" if 0 in app.candidates else ""
        app.say(f"{_name(max(app.candidates))} stays; /retry pick K keeps another{before}")


def _note(app: ChatApp, number: int) -> None:
    """Keep the last reply, if there is one, under a number; say if it is one of those that are
    there.
    """
    turns = app.conversation.turns
    if not turns or turns[-1].role != "assistant":
        return
    reply = app.replies.last(app.conversation)
    for other, candidate in app.candidates.items():
        if candidate.message.content == reply.message.content:
            app.say(f"the same as {_name(other)}")
            break
    app.candidates[number] = reply


def _name(number: int) -> str:
    return f"reply {number}" if number else "the reply before"


def _pick(app: ChatApp, number: int) -> None:
    """Let one of several replies be the one that stays."""
    conversation, candidates = app.conversation, app.candidates
    if not candidates:
        raise UsageError("there are no replies to choose from", "/retry N asks for N of them")
    if number not in candidates:
        known = ", ".join(map(str, candidates))
        raise UsageError(f"there is no reply {number}", f"it is one of {known}")
    last = conversation.messages[-1:]
    if not any(last == [candidate.message] for candidate in candidates.values()):
        raise UsageError("the conversation has gone on since", "/undo brings it back there")
    chosen = candidates[number]
    conversation.messages = [*conversation.messages[:-1], chosen.message]
    app.replies.put(conversation.turns, chosen)
    app.keep(chosen.parts[-1] if chosen.parts else None)
    app.say(f"{_name(number)} stays")
