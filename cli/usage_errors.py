"""What Typer refuses, said as nfox says everything: one line, and a hint what to do about it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from typer._click.exceptions import (
    BadParameter,
    ClickException,
    MissingParameter,
    NoArgsIsHelpError,
    NoSuchOption,
)

from nfox.errors import NfoxError, UsageError, did_you_mean

from .errors import print_error
from .origins import origin

_ANSWER = "nfox -p TEXT answers a text"
_CHAT = "nfox alone is the chat, nfox -p TEXT one answer"
_ELSEWHERE = {
    "chat": _CHAT,
    "run": f"{_CHAT}, nfox --model NAME another model",
    "help": "nfox --help",
    "version": "nfox --version",
    "list": "nfox models",
    "ls": "nfox models",
    "pull": "nfox get NAME",
    "rm": "nfox remove NAME",
}
"""Commands of other programs, and what does the same here."""


@contextmanager
def refusing_in_one_line() -> Iterator[None]:
    """Exit with a line on stderr where words of the command line cannot be used.

    Raises:
        SystemExit: with the exit code of the error.
    """
    try:
        yield
    except NoArgsIsHelpError as error:
        typer.echo(error.format_message(), err=True)
        code = error.exit_code
    except ClickException as error:
        print_error(*_in_one_line(error))
        code = error.exit_code
    except NfoxError as error:
        print_error(error.message, error.hint)
        code = error.code
    except typer.Abort:
        print_error("aborted")
        code = 1
    sys.exit(code)


def refuse_command(name: str, commands: Iterable[str], path: str) -> NoReturn:
    """Refuse a name that no command has.

    Args:
        name: the name.
        commands: the names that there are.
        path: the words before the name.

    Raises:
        UsageError: always.
    """
    known, is_root = list(commands), " " not in path.removeprefix("python -m ")
    hint = did_you_mean(name, known, f"commands: {', '.join(known)}")
    if is_root and " " in name.strip():
        hint = _ANSWER
    elif is_root:
        hint = _ELSEWHERE.get(name) or did_you_mean(name, known, f"{_ANSWER}; {hint}")
    raise UsageError(f"there is no command {name[:100]!r}", hint)


def _in_one_line(error: ClickException) -> tuple[str, str]:
    """Return the message and the hint of an error of Typer's."""
    context: Any = getattr(error, "ctx", None)
    lists = f"`{context.command_path} --help` lists what there is" if context else ""
    if isinstance(error, NoSuchOption):
        name = error.option_name
        return f"there is no option {name}", did_you_mean(name, error.possibilities or (), lists)
    if isinstance(error, MissingParameter) and error.param is not None:
        name, usage = _name(error.param), context.get_usage().removeprefix("Usage: ").strip()
        about = str(getattr(error.param, "help", None) or "").rstrip(".")
        return f"{name} is missing", f"{usage}; {name}: {about}" if about else usage
    if isinstance(error, BadParameter) and error.param is not None:
        return _wrong_value(error, context)
    message = error.format_message().rstrip(".").replace("Option '", "'").replace("'", "")
    for theirs, ours in _WORDS.items():
        message = message.replace(theirs, ours)
    return message, lists


def _wrong_value(error: BadParameter, context: Any) -> tuple[str, str]:
    """Return what was expected of the value of an option, and what came; and a hint."""
    parameter: Any = error.param
    name, place = _name(parameter), origin(context, parameter)
    refused: list[Any] = getattr(error.__cause__, "errors", list)()  # pydantic's
    if not refused:
        return f"{place or name}: {error.message}", ""
    came = str(refused[0]["input"])[:100]
    choices = [str(choice) for choice in parameter.type_descriptor.choices or ()]
    expected, hint = error.message.partition(", unable")[0], ""
    for theirs, ours in _WORDS.items():
        expected = expected.replace(theirs, ours)
    if choices:
        expected, hint = f"expected one of {', '.join(choices)}", did_you_mean(came, choices)
    return f"{f'{place}: ' if place else ''}{name} {came}: {expected}", hint


_WORDS = {
    "Input should be": "expected",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "Got unexpected extra argument(s)": "not expected here:",
    "requires an argument": "needs a value",
    "does not take": "takes no",
    "takes no a value": "takes no value",
}


def _name(parameter: Any) -> str:
    """Return the name of an option as it is typed, or of an argument as usage shows it."""
    return str(
        parameter.opts[0] if parameter.param_type_name == "option" else parameter.display_name_raw
    )
