"""The registry of slash commands, from which help, completion and dispatch are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from nfox.errors import UsageError, did_you_mean

from ...paths import complete_path
from ..attachments import complete_mention, send

if TYPE_CHECKING:
    from ..app import ChatApp

Action = Callable[["ChatApp", str], None]
"""What a command does; it is called with what follows the command's name."""
Completions = Callable[["ChatApp"], Iterable[str]]
"""Returns the words that may follow a command's name."""


class Leave(Exception):
    """Raised by the command that ends the chat."""


@dataclass(frozen=True)
class Command:
    """A slash command.

    Args:
        names: the name that /help shows, and aliases.
        usage: what follows the name, as /help shows it.
        help: one line that says what the command does.
        run: does it.
        completions: words that may follow the name.
        paths: the endings of files whose paths may follow the name, ("",) for all; () for none.
    """

    names: tuple[str, ...]
    usage: str
    help: str
    run: Action
    completions: Completions
    paths: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """The name of the module that registers the command."""
        return self.run.__module__.rpartition(".")[2]

    @property
    def group(self) -> str:
        """The group of /help in which the command stands."""
        return _MODULES[self.module]


REGISTRY: dict[str, Command] = {}
"""All commands by their names, aliases included."""

_MODULES = {
    "conversation": "Conversation",
    "retry": "Conversation",
    "review": "Conversation",
    "log": "Conversation",
    "compose": "Messages",
    "view": "Messages",
    "share": "Messages",
    "models": "Settings",
    "settings": "Settings",
    "thinking": "Settings",
    "config": "Settings",
    "inspect": "Speculation",
    "heat": "Speculation",
}
"""The modules that register commands, in the order of /help, and their groups there."""


_LEAVING = ("exit", "quit")
"""What leaves as well, since it does in a shell and in the chats of other programs."""


def command(
    *names: str,
    usage: str = "",
    completions: Completions = lambda app: (),
    paths: tuple[str, ...] = (),
) -> Callable[[Action], Action]:
    """Register a function as a command, whose help is the first line of its docstring.

    Args:
        names: the name that /help shows, and aliases.
        usage: what follows the name, as /help shows it; where it is empty, nothing may.
        completions: returns words that may follow the name.
        paths: the endings of files whose paths may follow the name, ("",) for all; () for none.
    """

    def register(run: Action) -> Action:
        help = (run.__doc__ or "").splitlines()[0]
        entry = Command(names, usage, help, run, completions, paths)
        REGISTRY.update(dict.fromkeys(names, entry))
        return run

    return register


def registry() -> dict[str, Command]:
    """Return all commands by name, in the order of /help, after importing the modules that
    register them.
    """
    for module in _MODULES:
        import_module(f".{module}", __package__)
    order = list(_MODULES)
    return dict(sorted(REGISTRY.items(), key=lambda entry: order.index(entry[1].module)))


def handle(app: ChatApp, text: str) -> bool:
    """Run what was typed: a command, a message, or nothing.

    Returns:
        Whether the chat goes on.

    Raises:
        NfoxError: if the command or the reply failed.
    """
    text = text.strip()
    if text in _LEAVING:
        return False
    if text.startswith("//"):
        send(app, text[1:], typed=text)
    elif text.startswith(("/", "!!")):
        name, *rest = text.split(maxsplit=1)
        command, argument = find_command(name), "".join(rest)
        if argument and not command.usage:
            hint = f"type {name} alone; //... sends a leading slash"
            raise UsageError(f"{name} takes nothing behind it", hint)
        try:
            command.run(app, argument)
        except Leave:
            return False
    elif text:
        send(app, text)
    return True


def find_command(name: str) -> Command:
    """Return the command of a name.

    Raises:
        UsageError: if there is none, since the line can hardly be meant for the model.
    """
    known = registry()
    if name not in known:
        hint = did_you_mean(name, known, "/help lists them")
        raise UsageError(f"there is no command {name}", f"{hint} (//... sends a leading slash)")
    return known[name]


def complete(app: ChatApp, typed: str) -> Iterable[str]:
    """Return the words to which the end of what was typed can be completed."""
    if not typed.startswith("/") or "\n" in typed:
        return sorted(complete_mention(typed))
    name, space, argument = typed.partition(" ")
    if not space:
        return sorted(known for known in registry() if known.startswith(name))
    entry = registry().get(name)
    if entry is None:
        return ()
    before, space, start = argument.rpartition(" ")
    words = [word for word in entry.completions(app) if word.startswith(start)]
    if entry.paths:  # a path is all of the argument, spaces included
        words += (
            path.removeprefix(before + space) for path in complete_path(argument, entry.paths)
        )
    return sorted(words)
