"""`nfox config`: what is set, and where; the file of options, to be edited."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from nfox.errors import UsageError, did_you_mean

from ..help import meaning
from ..layout import column_of, definitions
from ..options.dataclass_options import grouped, option
from ..paths import typed_path
from ..printing import say, tell
from .file import default_path, read_config, short
from .shown import DEFAULT, as_toml, key_of, settable, shown


@dataclass(frozen=True)
class ConfigArguments:
    """Whose options are shown, or what is done with the file."""

    command: Annotated[
        list[str] | None, typer.Argument(help="As serve, or data distill. [default: the chat]")
    ] = None
    path: Annotated[bool, option("Config", "Say where the file is.", "--path", envvar=None)] = False
    edit: Annotated[
        bool, option("Config", "Open it in the editor of VISUAL or EDITOR.", "--edit", envvar=None)
    ] = False


def config(context: typer.Context, arguments: ConfigArguments) -> None:
    """Show every option's value, and where it was set; the file of options.

    The file is TOML: KEY = VALUE, where a key is the long name of an option of the chat, and tables
    such as [serve] are for other commands. The command line wins over environment variables
    (NFOX_TOP_P), and these over the file.
    """
    root: Any = context.find_root()
    named = context.params.get("config") or root.params.get("config")
    path = typed_path(str(named), "--config nfox.toml") if named else default_path()
    if arguments.path:
        say(path)
        return
    if arguments.edit:
        _edit(path, root.command)
        return
    with root.command.make_context(root.info_name, [f"--config={named}"] if named else []) as chat:
        _show(_below(chat, arguments.command or []))
    edit = "nfox config --edit"
    if path.is_file():
        tell(f"nfox: the file is {short(path)}; `{edit}` opens it")
    else:
        tell(f"nfox: there is no file {short(path)} yet; `{edit}` makes it")


def _below(context: Any, words: list[str]) -> Any:
    """Return the context of the command that words name below another one's."""
    for word in words:
        commands = getattr(context.command, "commands", {})
        if word not in commands:
            hint = did_you_mean(word, commands, f"commands: {', '.join(commands)}")
            raise UsageError(f"there is no command {' '.join(words)!r}", hint)
        # Without what must be typed: nothing is run.
        context = commands[word].make_context(word, [], parent=context, resilient_parsing=True)
    return context


def _show(context: Any) -> None:
    """Print the options of a command, those that were set first."""
    rows = [(key_of(parameter), value, place) for parameter, value, place in shown(context)]
    values = [f"{key} = {value}" for key, value, _ in rows]
    column = column_of(values, 44)
    for text, (_, _, place) in sorted(zip(values, rows, strict=True), key=_is_default):
        say(*definitions([(text, place)], 1 << 10, column, indent=0))


def _is_default(row: tuple[str, tuple[str, str, str]]) -> bool:
    return row[1][2] == DEFAULT


def _edit(path: Path, root: Any) -> None:
    """Let the person edit the file, which is begun with all keys as comments, and check it."""
    from ..chat.editor import edit_file, editor_command

    command = editor_command()  # before anything is written
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(_template(root)) + "\n", encoding="utf-8")
    edit_file(path, command)
    read_config(path, root)
    say(f"{short(path)} is read by every command from now on")


def _template(root: Any) -> list[str]:
    """Return the lines of a file in which every key is a comment."""
    lines = [
        "# Options of nfox: the command line and the environment (NFOX_TOP_P) win over them.",
        "",
    ]
    for parameter in settable(root):
        example = as_toml(parameter.default) if parameter.default is not None else "..."
        lines.append(f"# {key_of(parameter)} = {example}  # {meaning(parameter)}")
    return [*lines, "", "# [serve]", "# port = 5000"]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("config")(grouped(config))
