"""Commands about the log of all conversations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from nfox.errors import UsageError
from nfox.text.pieces import pieces_of_runs

from ...log.commands import line_of
from ...log.database import ConversationLog
from ...log.entry import id_of
from .conversation import begin_of, restored
from .registry import command

if TYPE_CHECKING:
    from ..app import ChatApp

_LISTED = 15


def _log(app: ChatApp) -> ConversationLog:
    return ConversationLog() if app.log is None else app.log.log


def _numbers(app: ChatApp) -> Iterable[str]:
    entries = _log(app).entries(_LISTED + 1)
    return [str(entry.id) for entry in entries if not _is_this(app, entry.id)][:_LISTED]


@command("/resume", usage="[ID]", completions=_numbers)
def resume(app: ChatApp, argument: str) -> None:
    """Go on with the last conversation, or number ID."""
    entry = _log(app).read(_number(app, argument) if argument else _before(app))
    model = app.conversation.restore(entry.to_json(), f"conversation {entry.id} of the log")
    said = [row for row in entry.rows if row.role != "system"]
    pieces = (pieces_of_runs(row.content, row.sources) for row in said)
    app.replies.restore(app.conversation.turns, pieces)
    app.files.clear()
    if app.log is not None:
        app.log.go_on_with(entry)
    app.say(f"going on with {entry.id}: {begin_of(app, entry.title)}")
    restored(app, model)


@command("/log", usage="[WORDS]")
def list_log(app: ChatApp, argument: str) -> None:
    """List conversations, or those with all WORDS."""
    entries = _log(app).entries(_LISTED, argument.split())
    if not entries:
        words = f"with {argument}" if argument else "yet"
        raise UsageError(f"the log has no conversation {words}", "it has what got a reply")
    for entry in entries:
        mark = "*" if _is_this(app, entry.id) else " "
        app.say(f"{mark}{line_of(entry, app.notes.width - len(mark))}")
    app.say("* this one; /resume ID goes on with one; nfox log shows, exports and deletes")


@command("/title", usage="TEXT")
def title(app: ChatApp, argument: str) -> None:
    """Give the conversation a title in the log."""
    if app.log is None or app.log.number is None:
        raise UsageError("this conversation is not in the log", "a title needs a first reply")
    if not argument:
        raise UsageError("which title?", "for example /title letters to the bank")
    app.log.log.retitle(app.log.number, argument)
    app.say(f"the title of conversation {app.log.number} is now: {begin_of(app, argument)}")


def _number(app: ChatApp, text: str) -> int:
    """Return the id of a conversation that is not this one.

    Raises:
        UsageError: if the text is none.
    """
    if (number := id_of(text)) is None:
        raise UsageError(f"{text} is no conversation's number", "/log lists them")
    if _is_this(app, number):
        raise UsageError(f"conversation {number} is this one", "/log lists the others")
    return number


def _before(app: ChatApp) -> int | None:
    """Return the id of the conversation before this one; None if the log is empty.

    Raises:
        UsageError: if this one is all that there is.
    """
    numbers = [entry.id for entry in _log(app).entries(2)]
    others = [number for number in numbers if not _is_this(app, number)]
    if numbers and not others:
        raise UsageError("there is no other conversation in the log", "/reset begins one")
    return others[0] if others else None


def _is_this(app: ChatApp, number: int) -> bool:
    return app.log is not None and number == app.log.number
