"""Where the values of options come from, and the errors that say so: what was typed nowhere on the
command line cannot be found by the option's name alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer._click.globals import get_current_context

from nfox.errors import NfoxError

from .config.file import CONFIG
from .config.option import command_words

_LEAST = 3  # characters of a value that is looked for in a message


def origin(context: Any, parameter: Any) -> str:
    """Return where a value comes from that was not typed: the environment variable, or the file and
    the line; "" for others.

    Args:
        context: of the command, Typer's.
        parameter: of the command, Typer's.
    """
    source = context.get_parameter_source(parameter.name)
    if source is not None and source.name == "DEFAULT_MAP" and CONFIG in context.meta:
        return str(context.meta[CONFIG].place(command_words(context), parameter.name))
    return str(parameter.envvar) if source is not None and source.name == "ENVIRONMENT" else ""


@contextmanager
def naming_origins() -> Iterator[None]:
    """Put before the message of an error within this context where the option that it names has its
    value from, if that was not typed.
    """
    try:
        yield
    except NfoxError as error:
        if (context := get_current_context(silent=True)) is not None:
            places = dict.fromkeys(_places(context, error.message))
            error.message = "".join(f"{place}: " for place in places) + error.message
        raise


def _places(context: Any, message: str) -> Iterator[str]:
    """Yield where the values of the options come from that a message is about."""
    for parameter in context.command.params:
        value = context.params.get(parameter.name)
        words = [*parameter.opts, *parameter.secondary_opts]
        if isinstance(value, str) and len(value) >= _LEAST and value not in words:
            words.append(value)
        if any(re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", message) for word in words):
            yield from filter(None, [origin(context, parameter)])
