"""The file that holds options: TOML, whose keys are the long names of the chat's options, with a
table for what is of another command.

What an environment variable may say, the file may say. The command line wins over the environment,
and that over the file. Whatever in it cannot be used is refused with its line.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from nfox.controls import one_line
from nfox.errors import UsageError, did_you_mean
from nfox.files.reading import read_text, refusing

from ..paths import typed_path
from .lines import Words, lines_of

CONFIG = "nfox.config"
"""Where a context keeps the file that was read."""
_ANSWERING = ("race", "generate", "serve", "worker", "methods", "doctor")
"""The commands that take the chat's options from the file too; others measure, or make data."""
_LINE = re.compile(r"line (\d+)")


@dataclass(frozen=True)
class ConfigFile:
    """What a file of options says.

    Args:
        path: the file.
        values: the values as Typer takes them: by the names of options in Python, and for each
            command by its name such a table again.
        lines: the line of each of these, by the names of its command and its option.
    """

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[tuple[Words, str], int] = field(default_factory=dict)

    def place(self, command: Words, name: str) -> str:
        """Return the file and the line in which an option of a command is set.

        Args:
            command: the words after the program's name.
            name: of the option in Python.
        """
        line = self.lines.get((command, name)) or self.lines.get(((), name), 0)
        return located(self.path, line)


def is_settable(parameter: Any) -> bool:
    """Return whether a file may set an option: as the environment may, but for its own name."""
    return bool(parameter.param_type_name == "option" and parameter.envvar) and (
        parameter.name != "config"
    )


def located(path: Path, line: int) -> str:
    """Return a place in a file as errors name it."""
    return f"{short(path)}:{line}" if line else short(path)


def short(path: Path) -> str:
    """Return a path with ~ for the person's own folder."""
    try:
        home = Path.home()
    except RuntimeError:  # of a person without one
        return str(path)
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def default_path() -> Path:
    """Return the path of the file that is read where no other is named."""
    return Path(platformdirs.user_config_dir("nfox", appauthor=False), "config.toml")


def read_config(named: Path | None, root: Any) -> ConfigFile:
    """Return what the file of options says.

    Args:
        named: the file; None for the default one, which may be missing.
        root: the command that has all others.

    Raises:
        UsageError: if the file that was named is missing, or something in it cannot be used.
    """
    path = default_path() if named is None else typed_path(str(named), "--config nfox.toml")
    if str(path) == os.devnull or (named is None and not path.is_file()):
        return ConfigFile(path)
    text = read_text(path, "a file of options, such as temperature = 0.7")
    return _Reader(path, text).read(root)


class _Reader:
    """Reads a file of options.

    Args:
        path: the file.
        text: what stands in it.
    """

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.config = ConfigFile(path)
        try:
            with refusing(short(path)):
                self.data = tomllib.loads(text)
        except UsageError as error:
            found = _LINE.search(error.message)
            line = int(found[1]) if found else len(text.splitlines())  # or at the end
            place = located(path, line)
            reason = error.message.partition(": ")[2].partition(" (at ")[0]
            raise UsageError(
                f"{place}: not TOML: {reason}", "KEY = VALUE, texts in quotes"
            ) from error
        self.places = lines_of(text)

    def read(self, root: Any) -> ConfigFile:
        """Return what the file says, for the commands below a root."""
        with refusing(short(self.path)):
            self._read_table(root, self.data, (), self.config.values)
        shared = {p.envvar: p.name for p in root.params if p.name in self.config.values}
        for name in _ANSWERING:
            own = self.config.values.setdefault(name, {})
            for parameter in root.commands[name].params:
                key = shared.get(parameter.envvar)
                if parameter.envvar and key:
                    own.setdefault(parameter.name, self.config.values[key])
                    line = self.config.lines[(), key]
                    self.config.lines.setdefault(((name,), parameter.name), line)
        return self.config

    def _read_table(
        self, command: Any, data: Mapping[str, Any], path: Words, values: dict[str, Any]
    ) -> None:
        """Read the options of a command, and the tables of the commands in it."""
        commands = getattr(command, "commands", {})
        options = {
            name.removeprefix("--"): parameter
            for parameter in command.params
            for name in parameter.opts
            if is_settable(parameter) and name.startswith("--")
        }
        for typed, value in data.items():
            key, where = typed.replace("_", "-"), (*path, typed)
            if isinstance(value, dict) and key in commands:
                self._read_table(commands[key], value, where, values.setdefault(key, {}))
                continue
            if key not in options:
                raise self._unknown(
                    command, key, [*options, *commands], where, is_table=isinstance(value, dict)
                )
            parameter = options[key]
            values[parameter.name] = self._checked(parameter, key, value, where)
            self.config.lines[path, parameter.name] = self.places.get(where, 0)

    def _unknown(
        self, command: Any, key: str, known: Sequence[str], where: Words, *, is_table: bool
    ) -> UsageError:
        """Return the error for a key that no option has which a file may set."""
        place, key = located(self.path, self.places.get(where, 0)), one_line(key)[:100]
        if is_table:
            hint = did_you_mean(key, known, "a table is for the options of a command: [serve]")
            return UsageError(f"{place}: there is no command {' '.join((*where[:-1], key))}", hint)
        table = f" in [{'.'.join(where[:-1])}]" if len(where) > 1 else ""
        for parameter in command.params:
            if f"--{key}" in parameter.secondary_opts:
                primary = parameter.opts[0].removeprefix("--")
                return UsageError(f"{place}: {key}{table} is no key", f"{primary} = false")
            if f"--{key}" in parameter.opts:
                return UsageError(
                    f"{place}: {key}{table} is of the command line alone", "take it out"
                )
        hint = did_you_mean(key, known, "`nfox config` lists the keys")
        return UsageError(f"{place}: there is no option {key}{table}", hint)

    def _checked(self, parameter: Any, key: str, value: Any, where: Words) -> Any:
        """Return a value whose type an option takes; the rest is checked where it is used."""
        wrong = ""
        if parameter.is_flag:
            wrong = "" if isinstance(value, bool) else "true or false"
        elif parameter.multiple:
            value = [value] if isinstance(value, str) else value
            of_texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
            wrong = "" if of_texts else "a list of texts"
        elif isinstance(value, bool) or not isinstance(value, str | int | float):
            wrong = "a number" if parameter.type_descriptor.annotation in (int, float) else "a text"
        if wrong:
            place = located(self.path, self.places.get(where, 0))
            raise UsageError(
                f"{place}: {key} = {json.dumps(value, default=str)[:100]}: expected {wrong}"
            )
        return value
