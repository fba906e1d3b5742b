"""Every option of a command with its value, and where that comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nfox.secrets import MASK, OPTIONS

from ..origins import origin
from .file import is_settable

DEFAULT = "default"
_UNSET = "-"


def settable(command: Any) -> list[Any]:
    """Return the options of a command that a file may set."""
    return [parameter for parameter in command.params if is_settable(parameter)]


def key_of(parameter: Any) -> str:
    """Return the name of an option as a file has it."""
    return str(next(n for n in parameter.opts if n.startswith("--"))).removeprefix("--")


def as_toml(value: Any) -> str:
    """Return a value as a file has it."""
    if value is None:
        return _UNSET
    plain = str(value) if isinstance(value, Path) else value
    return json.dumps(list(plain) if isinstance(plain, tuple) else plain, ensure_ascii=False)


def shown(context: Any) -> Iterator[tuple[Any, str, str]]:
    """Yield every option of a command that a file may set, its value, which of a secret is ***, and
    where that comes from.
    """
    for parameter in settable(context.command):
        source = context.get_parameter_source(parameter.name)
        typed = source is not None and source.name == "COMMANDLINE"
        place = "command line" if typed else origin(context, parameter) or DEFAULT
        value = context.params.get(parameter.name)
        yield parameter, as_toml(MASK if value and parameter.name in OPTIONS else value), place
