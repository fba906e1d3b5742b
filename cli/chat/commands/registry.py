"""What can be typed besides messages. One registry: help, completion and dispatch read it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from nfox.errors import UsageError

if TYPE_CHECKING:
    from ..app import ChatApp

Action = Callable[["ChatApp", str], None]
Words = Callable[["ChatApp"], Iterable[str]]


class Leave(Exception):
    """The person wants to go."""


@dataclass(frozen=True)
class Command:
    """A slash command.

    Args:
        names: the first one is shown; the others are accepted too.
        usage: what follows the name.
        help: one line.
        run: does it; it is given what follows the name.
        words: what can follow the name, for completion.
    """

    names: tuple[str, ...]
    usage: str
    help: str
    run: Action
    words: Words


REGISTRY: dict[str, Command] = {}
"""By every name, aliases included."""

_HOMES = ("conversation", "settings", "inspect")
"""Modules that register commands, in the order of /help."""


def command(
    *names: str, usage: str = "", words: Words = lambda app: ()
) -> Callable[[Action], Action]:
    """Register a function as a command; its docstring's first line is the help."""

    def register(run: Action) -> Action:
        help = (run.__doc__ or "").splitlines()[0]
        made = Command(names, usage, help, run, words)
        REGISTRY.update(dict.fromkeys(names, made))
        return run

    return register


def registry() -> dict[str, Command]:
    """Return all commands by name."""
    for home in _HOMES:
        import_module(f".{home}", __package__)
    return REGISTRY


def take(app: ChatApp, text: str) -> bool:
    """Do what was typed: a command, a message, or nothing. Say whether the chat goes on.

    Raises:
        NfoxError: if it could not be done.
    """
    text = text.strip()
    if text.startswith("//"):
        app.send(text[1:])
    elif text.startswith(("/", "!!")):
        name, _, rest = text.partition(" ")
        try:
            find(name).run(app, rest.strip())
        except Leave:
            return False
    elif text:
        app.send(text)
    return True


def find(name: str) -> Command:
    """Return a command.

    Raises:
        UsageError: if there is none of that name; it was not meant for the model.
    """
    known = registry()
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]}?" if close else "/help lists them"
        raise UsageError(f"there is no command {name}", f"{hint} //... sends a leading slash")
    return known[name]


def complete(app: ChatApp, typed: str) -> Iterable[str]:
    """Return the words that may stand at the end of what was typed."""
    if not typed.startswith("/") or "\n" in typed:
        return ()
    name, space, rest = typed.partition(" ")
    if not space:
        return sorted(known for known in registry() if known.startswith(name))
    found = registry().get(name)
    start = rest.rpartition(" ")[2]
    return sorted(word for word in found.words(app) if word.startswith(start)) if found else ()
