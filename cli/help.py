"""Help texts that fit on two screens: what is used daily, and the rest behind `--help all`.

They are plain text, with headings in bold: rich, by which Typer would draw them, takes longer to
import than all the rest that help needs.
"""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from .layout import column_of, definitions, unbroken

RARE = " (rare)"
"""Ends the panel of an option that is shown by `--help all` only."""
ALL = "all"
HELP_NAMES = ("-h", "--help")
_EVERYTHING = "nfox.everything"  # in a context: whether `--help all` was typed
_LEAST_WIDTH, _USUAL_WIDTH, _MOST_WIDTH = 40, 80, 100
_OTHERS = "Options"
_EVERYWHERE = (
    "debug",
    "config",
    "help",
    "install_completion",
    "show_completion",
)  # in any command's help
_LONGEST_CHOICES = 14

Rows = Sequence[tuple[str, str]]


def asks_for_everything(words: Sequence[str]) -> bool:
    """Return whether `--help all` stands in words, before the first one that is no option."""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word in HELP_NAMES:
            return following == ALL
        if not word.startswith("-"):
            return False
    return False


class _ShortHelp:
    """What a command and a group do in the same way: their help fits on two screens."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[_EVERYTHING] = asks_for_everything(args)
        parsed: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]  # Typer's own
        return parsed

    def get_usage(self, ctx: Any) -> str:
        return f"Usage: {_usage(self, ctx)}"

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write("\n".join(_help_lines(self, ctx)))


class HelpCommand(_ShortHelp, TyperCommand):
    """A command whose help fits on two screens."""


class HelpGroup(_ShortHelp, TyperGroup):
    """A group of commands whose help fits on two screens."""


def page_width() -> int:
    """Return how wide help texts are: as the terminal, within limits of what can be read."""
    return min(max(shutil.get_terminal_size().columns, _LEAST_WIDTH), _MOST_WIDTH)


def filled(text: str) -> Iterator[str]:
    """Yield the lines of a docstring, each paragraph filled anew."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        yield from wrap(paragraph, page_width(), break_on_hyphens=False)


def panels(groups: Iterable[tuple[str, Rows]], *, apart: bool = True) -> Iterator[str]:
    """Yield the lines of panels, whose columns are as wide in all of them.

    Args:
        groups: the title of each panel, and its rows of names and meanings.
        apart: put an empty line between two panels.
    """
    shown = [(title, rows) for title, rows in groups if rows]
    column = column_of(name for _, rows in shown for name, _ in rows)
    for number, (title, rows) in enumerate(shown):
        if apart or not number:
            yield ""
        bold = os.environ.get("TERM") != "dumb"  # and where no terminal is, Typer takes it out
        yield typer.style(title, bold=True) if bold else title
        yield from definitions(rows, page_width(), column)


def _help_lines(command: Any, context: Any) -> Iterator[str]:
    """Yield the lines of the help text of a command, or of a group of commands."""
    everything = context.meta.get(_EVERYTHING, False)
    yield from wrap(command.get_usage(context), page_width(), subsequent_indent="  ")
    yield from filled(command.help or "")
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    yield from panels([("Arguments", [(_metavar(p), p.help or "") for p in arguments])])
    yield from panels([("Commands", list(_command_rows(command)))])
    options = [p for p in command.get_params(context) if p.param_type_name == "option"]
    shown = [p for p in options if everything or not _is_rare(p)]
    groups: dict[str, list[tuple[str, str]]] = {}
    for parameter in shown:
        rows = groups.setdefault((parameter.rich_help_panel or _OTHERS).removesuffix(RARE), [])
        rows.append((_names(parameter), meaning(parameter)))
    yield from panels(groups.items(), apart=everything)
    if more := sum(p.name not in _EVERYWHERE for p in options if p not in shown):
        word = "option" if more == 1 else "options"
        yield from ("", *filled(f"`{context.command_path} --help all` lists {more} more {word}."))


def _usage(command: Any, context: Any) -> str:
    """Return the words of a command line: in capitals what is to be replaced."""
    words = [context.command_path, "[OPTIONS]"]
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = _metavar(parameter)
            words.append(name if parameter.required else f"[{name}]")
    return " ".join([*words, "[COMMAND]"] if hasattr(command, "commands") else words)


def _command_rows(command: Any) -> Iterator[tuple[str, str]]:
    """Yield the name of each command of a group, and the part of its help that fits in a row."""
    commands: dict[str, Any] = getattr(command, "commands", {})
    # In a narrower page it goes on in the next row: a shorter part may say something else.
    room = max(page_width(), _USUAL_WIDTH) - column_of(commands) - 4
    for name, inner in commands.items():
        text = " ".join((inner.help or "").split("\n\n")[0].split())
        text = text.partition(". ")[0].rstrip(".")
        while len(text) >= room and (end := max(map(text.rfind, ",:;"))) > 0:
            text = text[:end]
        yield name, f"{text}."


def _is_rare(parameter: Any) -> bool:
    """Return whether an option is shown by `--help all` only."""
    return parameter.name in _EVERYWHERE or str(parameter.rich_help_panel).endswith(RARE)


def _names(parameter: Any) -> str:
    """Return an option as it is typed: the short name in front, and what stands for its value."""
    short = next((name for name in parameter.opts if not name.startswith("--")), "")
    long = next(name for name in parameter.opts if name.startswith("--"))
    names = f"{short}, {long}" if short else f"    {long}"
    if parameter.name == "help":
        return f"{names} [{ALL}]"
    if parameter.secondary_opts:
        names += f"/{parameter.secondary_opts[0]}"
    return names if parameter.is_flag or parameter.count else f"{names} {_metavar(parameter)}"


def _metavar(parameter: Any) -> str:
    """Return what stands for the value of a parameter."""
    kind = parameter.type_descriptor
    if parameter.metavar:
        name = str(parameter.metavar)
    elif (joined := "|".join(map(str, kind.choices or ()))) and len(joined) <= _LONGEST_CHOICES:
        name = joined
    elif kind.annotation is int:
        name = "N"
    elif kind.annotation is float:
        name = "X"
    elif kind.annotation is Path:
        name = "PATH"
    else:
        name = parameter.opts[0].rpartition("-")[2].rpartition("_")[2].upper()
    repeated = parameter.nargs == -1 or (parameter.multiple and not parameter.metavar)
    return f"{name.removesuffix('...')}..." if repeated else name


def meaning(parameter: Any) -> str:
    """Return what an option does: its choices where its name does not show them, its default."""
    if parameter.name == "help":
        return "Show the most needed options, or all, and exit."
    text = str(parameter.help or "")
    choices = [str(choice) for choice in parameter.type_descriptor.choices or ()]
    if choices and len("|".join(choices)) > _LONGEST_CHOICES:
        text = f"{text.rstrip('.')}: {', '.join(choices)}."
    default = parameter.default
    if default is None or parameter.count or "[default" in text or default in ([], "", False):
        return text
    if parameter.is_flag:
        default = (parameter.opts if default else parameter.secondary_opts)[0]
    return f"{text} {unbroken(f'[default: {default}]')}"
