"""Commands about the conversation itself."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from nfox.conversation import FORMAT
from nfox.errors import UsageError

from ...display.reply_view import clean
from ..saved_files import last_file
from .registry import Leave, command, registry

if TYPE_CHECKING:
    from ..app import ChatApp


def _files(app: ChatApp) -> Iterable[str]:
    return (path.name for path in Path().glob("*.json"))


@command("/help", "/?")
def show_help(app: ChatApp, rest: str) -> None:
    """Show this list."""
    commands = dict.fromkeys(registry().values())
    width = max(len(f"{made.names[0]} {made.usage}") for made in commands)
    for made in commands:
        app.say(f"{made.names[0]} {made.usage}".ljust(width) + f"  {made.help}")
    others = [name for name, made in registry().items() if name != made.names[0]]
    app.say(f"also {' '.join(others)}")
    app.say("Enter sends, Alt-Enter or ^J makes a new line, //... sends a leading slash,")
    app.say("^C stops a reply, ^D leaves.")


@command("/exit", "/quit", "/bye", "!!exit")
def leave(app: ChatApp, rest: str) -> None:
    """Leave."""
    raise Leave


@command("/reset", "/clear", "!!reset")
def reset(app: ChatApp, rest: str) -> None:
    """Forget the conversation; the system message stays."""
    app.conversation.reset()
    app.say("a new conversation")


@command("/undo", "!!remove")
def undo(app: ChatApp, rest: str) -> None:
    """Take back the last question and its reply."""
    question = app.conversation.undo()
    if question is None:
        raise UsageError("there is nothing to take back")
    app.say(f"took back: {_excerpt(app, question)}")


@command("/regen", "!!regen")
def regenerate(app: ChatApp, rest: str) -> None:
    """Answer the last question again; above temperature 0, differently."""
    app.answer(app.conversation.regenerate())


@command("/continue")
def go_on(app: ChatApp, rest: str) -> None:
    """Go on with a reply that was cut by its length or by ^C."""
    app.answer(app.conversation.go_on())


@command("/save", "!!save", usage="FILE", words=_files)
def save(app: ChatApp, rest: str) -> None:
    """Write the conversation to a JSON file."""
    path = _path(rest)
    if path.exists() and not _is_conversation(path):
        raise UsageError(f"{path} exists and is no conversation", "choose another name")
    app.conversation.save(path)
    app.say(f"saved {_turns(app)} in {path}")


@command("/load", "!!load", usage="[FILE]", words=_files)
def load(app: ChatApp, rest: str) -> None:
    """Go on with the last conversation, or with a saved one, ours or FastChat's."""
    path = _path(rest) if rest else last_file()
    if not rest and not path.is_file():
        raise UsageError("there is no last conversation", "/load FILE reads a saved one")
    app.conversation.load(path)
    app.say(f"loaded {_turns(app)}")
    for message in app.conversation.turns[-2:]:
        app.say(f"{message.role}: {_excerpt(app, message.content)}")


@command("/system", usage="[TEXT]")
def system(app: ChatApp, rest: str) -> None:
    """Show or set the system message."""
    if rest:
        app.conversation.system = rest
    own = app.conversation.system
    said = app.engine.template.system if own is None else own
    app.say(f"system: {clean(said)}" if said else "system: as the template has it")


def _path(text: str) -> Path:
    if not text:
        raise UsageError("which file?", "for example /save talk.json")
    return Path(text).expanduser()


def _is_conversation(path: Path) -> bool:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and data.get("format") == FORMAT


def _turns(app: ChatApp) -> str:
    count = len(app.conversation.turns)
    return f"{count} message{'' if count == 1 else 's'}"


def _excerpt(app: ChatApp, text: str) -> str:
    line = " ".join(clean(text).split())
    most = max(app.screen.console.width - 20, 20)
    return line if len(line) <= most else line[:most] + app.screen.symbols.ellipsis
