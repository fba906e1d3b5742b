"""Commands about the conversation itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nfox.counting import counted
from nfox.errors import UsageError
from nfox.files.model_names import short_name

from ...display.excerpt import excerpt
from ...layout import column_of, definitions
from ...output_files import check_new
from ...paths import typed_path
from .registry import Leave, command, find_command, registry
from .review import show_message

if TYPE_CHECKING:
    from ..app import ChatApp


_TAIL = 12  # lines of a last reply that are shown again
_DEFAULT = "default"  # the system message that the chat began with
_KEYS = {
    "Enter": "Send.",
    "Alt-Enter, ^J": "Make a new line.",
    "^G": "Write in your editor.",
    "^C": "Stop a reply.",
    "^Z": "Suspend.",
    "^D": "Leave.",
    "//...": "Send what begins with a slash.",
}


@command("/help", "/?", usage="[COMMAND]", completions=lambda app: registry())
def show_help(app: ChatApp, argument: str) -> None:
    """Show this list, or the line of one command."""
    if argument:
        entry = find_command(argument if argument in registry() else f"/{argument}")
        app.say(f"{' '.join(entry.names)} {entry.usage}  {entry.help}")
        if words := [*entry.completions(app)]:
            app.say(f"what may follow: {'  '.join(words)}")
        return
    groups: dict[str, dict[str, str]] = {}
    for entry in registry().values():
        usage = f"{entry.names[0]} {entry.usage}".strip()
        groups.setdefault(entry.group, {})[usage] = entry.help
    aliases = [name for name, entry in registry().items() if name != entry.names[0]]
    groups["Keys"] = {**_KEYS, "also": " ".join(aliases)}
    column = column_of(usage for rows in groups.values() for usage in rows)
    for group, rows in groups.items():
        app.say(group)
        for line in definitions(rows.items(), app.notes.width, column):
            app.say(line)


@command("/exit", "/quit", "/bye", "!!exit")
def leave(app: ChatApp, argument: str) -> None:
    """Leave."""
    raise Leave


@command("/reset", "/clear", "!!reset")
def reset(app: ChatApp, argument: str) -> None:
    """Forget the conversation; the system message stays."""
    app.conversation.reset()
    app.files.clear()
    if app.log is not None:
        app.log.begin()
    app.say("a new conversation")


@command("/undo", "!!remove")
def undo(app: ChatApp, argument: str) -> None:
    """Take back the last question and its reply."""
    question = app.conversation.undo()
    if question is None:
        raise UsageError("there is nothing to take back")
    app.keep()
    app.say(f"took back: {begin_of(app, question)}")


@command("/regen", "!!regen")
def regenerate(app: ChatApp, argument: str) -> None:
    """Answer again; above temperature 0, differently."""
    app.show_reply(app.ask(app.conversation.regenerate))


@command("/continue")
def go_on(app: ChatApp, argument: str) -> None:
    """Go on with a reply that was cut short, or by ^C."""
    app.show_reply(app.ask(app.conversation.go_on))


@command("/save", "!!save", usage="FILE", paths=(".json",))
def save(app: ChatApp, argument: str) -> None:
    """Write the conversation to a JSON file."""
    path = typed_path(argument, "/save talk.json")
    if path.absolute() not in app.files:
        check_new(path, "conversation")
    app.conversation.save(path)
    app.files.add(path.absolute())
    app.say(f"saved {_turns(app)} in {path}")


@command("/load", "!!load", usage="[FILE]", paths=(".json",))
def load(app: ChatApp, argument: str) -> None:
    """Go on with a saved conversation, ours or FastChat's; without a file, as /resume."""
    if not argument:
        registry()["/resume"].run(app, "")
        return
    path = typed_path(argument, "/load talk.json")
    model = app.conversation.load(path)
    app.files = {path.absolute()}
    if app.log is not None:
        app.log.begin()
    restored(app, model)


@command("/system", usage=f"[TEXT|{_DEFAULT}]", completions=lambda app: (_DEFAULT,))
def system(app: ChatApp, argument: str) -> None:
    """Show or set the system message; default: the first."""
    if argument:
        app.conversation.system = None if argument == _DEFAULT else argument
    message = app.conversation.system
    if message is None:
        message = app.engine.template.system
    for line in (f"system: {message or 'as the template has it'}").splitlines():
        app.say(line)


def _turns(app: ChatApp) -> str:
    """Return how many messages the conversation has, in words."""
    return counted(len(app.conversation.turns), "message")


def restored(app: ChatApp, model: str | None) -> None:
    """Say what was loaded, and if it was with another model; show its last question, and the end
    of the reply to it.

    Args:
        app: the chat, with the conversation that was loaded.
        model: the name of the model that it was with; None where that is not known.
    """
    turns = app.conversation.turns
    app.say(f"loaded {_turns(app)}")
    if model is not None and model != app.engine.model.name:
        names = (short_name(model), short_name(app.engine.model.name))
        app.say("it was with {}; {} answers from now on".format(*names))
    for message, known in [*zip(turns, app.replies.pieces(turns), strict=True)][-2:]:
        if message.role == "assistant":
            show_message(app, message, known, _TAIL)
        else:
            app.say(f"{message.role}: {begin_of(app, message.content)}")


def begin_of(app: ChatApp, text: str) -> str:
    """Return the beginning of a message, in one line that fits on the screen behind a few words."""
    return excerpt(text, max(app.notes.width - 20, 20), app.screen.symbols.ellipsis)
