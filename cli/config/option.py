"""The option --config, which every command has: it is read before the others, whose defaults it
changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from nfox.errors import UsageError

from ..help import RARE
from .file import CONFIG, read_config

COMMAND = "nfox.command"
"""Where a context keeps the command that follows the program's own options."""
_NAME = "config"


def apply_config(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
    """Read the file of options, and let it change the defaults of a command and of those below it.

    Typer calls this function as the option's callback, before those of other options.
    """
    root: Any = context.find_root().command
    source = context.get_parameter_source(str(parameter.name))
    is_typed = source is not None and source.name == "COMMANDLINE"
    inherits = context.parent is not None and not is_typed
    if context.resilient_parsing or inherits or context.meta.get(COMMAND) == _NAME:
        return value
    if not hasattr(root, "commands"):  # a command that stands alone, as in tests
        return value
    try:
        config = read_config(value, root)
    except UsageError as error:
        if source is not None and source.name == "ENVIRONMENT":
            error.message = f"{parameter.envvar}: {error.message}"
        raise
    context.meta[CONFIG] = config
    values: Any = config.values
    for word in command_words(context):
        values = values.get(word, {})
    context.default_map = values
    return value


def command_words(context: Any) -> tuple[str, ...]:
    """Return the names of a command, from the one below the program on."""
    words: list[str] = []
    while context.parent is not None:
        words.insert(0, str(context.info_name))
        context = context.parent
    return tuple(words)


def config_option() -> Any:
    """Return the option --config, for `Annotated`."""
    return typer.Option(
        "--config",
        help="A file of options, in TOML. [default: as `nfox config --path` says]",
        metavar="FILE",
        envvar="NFOX_CONFIG",
        show_envvar=False,
        rich_help_panel=f"Options{RARE}",
        is_eager=True,
        callback=apply_config,
    )


ConfigOption = Path | None
