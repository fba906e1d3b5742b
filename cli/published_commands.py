"""Command lines of published programs, read by the tables of `published_names`.

Their words are put into ours before Typer parses them, so that all is as if ours had been typed.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperGroup
from typing_extensions import override

from . import unused
from .config.option import COMMAND
from .help import HelpCommand, HelpGroup
from .printing import tell
from .published_names import FLAGS, IMPLIED, READ, READ_WITH, UNUSED, VALUES
from .usage_errors import refuse_command, refusing_in_one_line

_PROFILING = "profiling"
"""What -p is beside --input, and takes no value."""
_ALONE = {("", "resume"): "last"}
"""Options of ours that can stand without a value, with the value that this means. Typer knows no
such options.
"""


@dataclass(frozen=True)
class Typed:
    """A word of a command line, or an option with its value.

    Args:
        words: as they were typed.
        name: of the option, without dashes and with hyphens; "" for a word that is no option.
        value: of the option; None for a flag.
    """

    words: tuple[str, ...]
    name: str = ""
    value: str | None = None


class Reader:
    """Reads the command lines of one of our commands.

    Args:
        command: its name, without that of the program.
        known: its own options, without dashes, and whether each takes a value.
        is_group: whether other commands may follow the first word that is no option.
    """

    def __init__(self, command: str, known: Mapping[str, bool], *, is_group: bool = False) -> None:
        self.command, self.known, self.is_group = command, known, is_group
        self.names = READ.get(command, {})

    def read(self, words: Sequence[str]) -> list[str]:
        """Return our words for a command line. What names imply, and what is not used, is said on
        stderr.
        """
        line = list(self._split(words))
        values = {typed.name: typed.value or "" for typed in line if typed.name}
        idle: dict[str, str] = {}
        said: list[str] = []
        ours = [word for typed in line for word in self._ours(typed, values, idle, said)]
        implied = [
            word
            for rule in IMPLIED
            if self.command in rule.commands and rule.typed in values
            if values.keys().isdisjoint(rule.unless) and not _in_environment(rule.unless)
            for word in (rule.option, rule.value(values))
        ]
        if (said or implied) and unused.is_first_process():
            read = ", ".join(filter(None, [*said, shlex.join(implied)]))
            tell(f"nfox: read as published: {read}")
        unused.report(idle)
        return [*implied, *ours]  # in front: at the end, they would be another command's

    def command_in(self, words: Sequence[str]) -> str:
        """Return the first word that is neither an option nor its value; "" if there is none."""
        return next((typed.words[0] for typed in self._split(words) if not typed.name), "")

    def _split(self, words: Sequence[str]) -> Iterator[Typed]:
        """Yield the words of a command line, options with their values."""
        rest = list(words)
        flag_p = any(word.partition("=")[0] == "--input" for word in words)
        while rest:
            word, *rest = rest
            if word == "--" or (self.is_group and not word.startswith("-")):
                yield Typed((word, *rest))
                return
            name, equals, value = word.lstrip("-").partition("=")
            if word.startswith("--"):
                name = name.replace("_", "-")
            if not word.startswith("-") or not name:
                yield Typed((word,))
            elif equals:
                yield Typed((word,), name, value)
            elif word == "-p" and flag_p:
                yield Typed((word,), _PROFILING)
            elif rest and self._takes(name, rest[0]):
                yield Typed((word, rest[0]), name, rest.pop(0))
            else:
                yield Typed((word,), name)

    def _takes(self, name: str, following: str) -> bool:
        """Return whether an option takes the word that follows it as its value."""
        if (self.command, name) in _ALONE:
            return following.isdecimal()
        if name in self.known:
            return self.known[name]
        if name in FLAGS:
            return following.lower() in ("true", "false")
        return name in self.names or name in VALUES or (self.command, name) in UNUSED

    def _ours(
        self, typed: Typed, values: Mapping[str, str], idle: dict[str, str], said: list[str]
    ) -> Sequence[str]:
        """Return our words for an option.

        Args:
            typed: the option.
            values: of all options on the line.
            idle: gets the reason where it is not used.
            said: gets what is to be said of how it was read.
        """
        name, value = typed.name, typed.value
        if value is None and (self.command, name) in _ALONE:
            return (*typed.words, _ALONE[self.command, name])
        if name == "s" and str(value).isdecimal() and "seed" in self.known:
            said.append(
                f"-s {value} is --seed {value} (--system {value} would be said to the model)"
            )
            return ("--seed", str(value))
        words = self.names.get(name)
        for other in values:
            words = READ_WITH.get((self.command, name, other), words)
        fixed = VALUES.get(name, {}).get(str(value or ""))
        if fixed is not None and fixed.startswith("="):
            value = fixed.removeprefix("=")
        elif fixed is not None:
            words = fixed
        elif name not in self.known and (self.command, name) in UNUSED:
            idle[typed.words[0].partition("=")[0]] = UNUSED[self.command, name]
            return ()
        if words is None or (
            name in self.known and fixed is None and words == self.names.get(name)
        ):
            return typed.words
        return self._checked(
            typed, [word.replace("{}", value or "") for word in shlex.split(words)]
        )

    def _checked(self, typed: Typed, words: Sequence[str]) -> Sequence[str]:
        """Return words of ours; those that were typed where this command does not have them."""
        names = [word.lstrip("-") for word in words if word.startswith("-")]
        return words if all(name in self.known for name in names) else typed.words


def _in_environment(names: Iterable[str]) -> bool:
    """Return whether any of some options of ours has its environment variable set."""
    return any(f"NFOX_{name.replace('-', '_').upper()}" in os.environ for name in names)


def reader_of(command: Any, context: Any) -> Reader:
    """Return the reader of a command of Typer's."""
    path: list[str] = []
    above = context
    while above.parent is not None:
        path.insert(0, str(above.info_name))
        above = above.parent
    known = {
        name.lstrip("-"): not (parameter.is_flag or getattr(parameter, "count", False))
        for parameter in command.get_params(context)
        for name in (*parameter.opts, *parameter.secondary_opts)
        if hasattr(parameter, "is_flag")
    }
    return Reader(" ".join(path), known, is_group=isinstance(command, TyperGroup))


class PublishedCommand(HelpCommand):
    """A command that reads published names."""

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            args = reader_of(self, ctx).read(args)
        return super().parse_args(ctx, args)


class PublishedGroup(HelpGroup):
    """A group of commands that reads published names."""

    @override
    def main(self, *args: Any, **extra: Any) -> Any:
        returning = {**extra, "standalone_mode": False}
        if not extra.get("standalone_mode", True):
            return super().main(*args, **returning)
        with refusing_in_one_line():
            sys.exit(super().main(*args, **returning) or 0)

    @override
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, ctx.token_normalize_func(args[0])) is None:
            refuse_command(args[0], self.commands, ctx.command_path)
        return super().resolve_command(ctx, args)

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            reader = reader_of(self, ctx)
            args = reader.read(args)
            ctx.meta[COMMAND] = reader.command_in(args)
        return super().parse_args(ctx, args)


def read_published_names(app: typer.Typer) -> None:
    """Make all commands of a program read published names, but for those that take any words."""
    app.info.cls = PublishedGroup
    for command in app.registered_commands:
        takes_any = (command.context_settings or {}).get("ignore_unknown_options")
        command.cls = HelpCommand if takes_any else PublishedCommand
    for group in app.registered_groups:
        if group.typer_instance is not None:
            read_published_names(group.typer_instance)
