"""Options in dataclasses: a command takes dataclasses, each field of which is one option, or again
such a dataclass.

That keeps fifty options out of signatures, and lets commands share them.
"""

from __future__ import annotations

import inspect
import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from nfox.counting import counted
from nfox.errors import UsageError

from ..config.option import ConfigOption, config_option
from ..errors import error_boundary
from ..help import RARE
from ..origins import naming_origins
from .completion import COMPLETED

_THREADS_PER_CORE = 4  # at most: they wait for each other in turns


def option(panel: str, help: str, *names: str, **extra: Any) -> Any:
    """Declare an option, for use in `Annotated`.

    Its environment variable is made of its long name: NFOX_TOP_P for --top-p. The help text says so
    once instead of in every line.

    Args:
        panel: the panel of the help text in which the option is listed.
        help: one line.
        names: the names as they are typed, the long one first.
        extra: more arguments of `typer.Option`.
    """
    variable = names[0].split("/")[0].removeprefix("--").replace("-", "_").upper()
    usual: dict[str, Any] = {"envvar": f"NFOX_{variable}", "show_envvar": False}
    usual["autocompletion"] = COMPLETED.get(names[0])
    return typer.Option(*names, help=help, rich_help_panel=panel, **usual | extra)


def rare(panel: str, help: str, *names: str, **extra: Any) -> Any:
    """Declare an option as `option` does, which is shown by `--help all` only."""
    return option(f"{panel}{RARE}", help, *names, **extra)


def split_variable(
    context: typer.Context, parameter: typer.CallbackParam, value: list[str]
) -> list[str]:
    """Split the environment variable of an option that can be given more than once.

    It is split as a shell splits words, so that quotes keep spaces. Typer calls this function as
    the callback of the option; `value` is returned if it does not come from the environment.

    Raises:
        BadParameter: if a quote is not closed.
    """
    name = str(parameter.envvar)
    source = context.get_parameter_source(str(parameter.name))
    if source is None or source.name != "ENVIRONMENT":
        return value
    try:
        return shlex.split(os.environ[name])
    except ValueError as error:
        raise typer.BadParameter(f"{error}; put quotes around what has spaces") from None


def few_threads(threads: int | None) -> int | None:
    """Return a number of threads; Typer calls this function as the option's callback.

    Raises:
        BadParameter: if the machine has far fewer cores.
    """
    cores = os.cpu_count() or 1
    if threads is not None and threads > (most := _THREADS_PER_CORE * cores):
        there = f"there {'is' if cores == 1 else 'are'} {counted(cores, 'core')}"
        raise typer.BadParameter(f"expected at most {most}, not {threads}: {there}")
    return threads


def typed_otherwise(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
    """Leave an option of the environment or of a file out where `-o NAME=VALUE`, whose shorthand it
    is, stands on the command line: what was typed wins. Typer calls this function as the option's
    callback, after those of options that were typed.
    """
    source = context.get_parameter_source(str(parameter.name))
    pairs = context.params.get("options") or ()
    named = any(pair.partition("=")[0].strip() == parameter.name for pair in pairs)
    return None if named and source is not None and source.name != "COMMANDLINE" else value


def refuse_stray_options(context: typer.Context) -> None:
    """Refuse options that stand before a subcommand, where they would be ignored.

    Raises:
        UsageError: if there are any.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE" and parameter.name != "config":
            command = context.invoked_subcommand
            path = f"{context.command_path} {command}"
            raise UsageError(
                f"{parameter.opts[0]} stands before {command}",
                f"options of {command} follow it: {path} {parameter.opts[0]} ...",
            )


_Config = Annotated[ConfigOption, config_option()]
_Debug = Annotated[bool, rare("Options", "Show tracebacks.", "--debug")]


def grouped(function: Callable[..., None]) -> Callable[..., None]:
    """Turn a function that takes dataclasses of options into a function for Typer, which takes the
    options one by one, --debug for the `error_boundary` that it stands in, and --config.
    """
    hints = get_type_hints(function, include_extras=True)
    groups = {name: hints[name] for name in hints if is_dataclass(hints[name])}
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in groups:
            parameters += _parameters(groups[name])
        else:
            parameters.append(parameter.replace(annotation=hints[name], kind=keyword))
    parameters.append(inspect.Parameter("debug", keyword, default=False, annotation=_Debug))
    parameters.append(inspect.Parameter("config", keyword, default=None, annotation=_Config))

    def command(*, debug: bool, config: Path | None, **values: Any) -> None:
        with error_boundary(debug=debug), naming_origins():
            filled = {name: _filled(group, values) for name, group in groups.items()}
            function(**values, **filled)

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def _parameters(group: Any) -> Iterator[inspect.Parameter]:
    """Yield one parameter of a signature for each option in a dataclass, in the order of fields."""
    for field, hint in _hinted(group):
        if is_dataclass(hint):
            yield from _parameters(hint)
        else:
            keyword, default = inspect.Parameter.KEYWORD_ONLY, _default(field)
            yield inspect.Parameter(field.name, keyword, default=default, annotation=hint)


def _filled(group: Any, values: dict[str, Any]) -> Any:
    """Return a dataclass filled with the values of its options, which are taken out of `values`."""
    return group(
        **{
            field.name: _filled(hint, values) if is_dataclass(hint) else values.pop(field.name)
            for field, hint in _hinted(group)
        }
    )


@cache
def _hinted(group: Any) -> list[tuple[Field[Any], Any]]:
    """Return the fields of a dataclass, each with its type."""
    hints = get_type_hints(group, include_extras=True)
    return [(field, hints[field.name]) for field in fields(group)]


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is MISSING else field.default
