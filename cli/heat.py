"""`nfox heat`: a reply from its JSON lines, or from the log, as a heat map of accepted lengths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nfox.errors import UsageError

from .options.chat import DisplayArguments
from .options.dataclass_options import grouped, option
from .output_files import check_out, write_out
from .printing import say

if TYPE_CHECKING:
    from .display.heat_map import HeatMap

_STDIN = "-"
_EXPECTED = "what nfox -p TEXT --json writes"


@dataclass(frozen=True)
class HeatArguments:
    """Which reply is drawn, and where."""

    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|ID",
            help="What nfox -p TEXT --json wrote, - for stdin; a conversation of nfox log.",
        ),
    ]
    out: Annotated[
        Path | None,
        option("Heat map", "An .html or .svg to write.", "--out", "-o", envvar=None),
    ] = None
    reply: Annotated[
        int | None,
        option("Heat map", "Which of several replies; the last one.", "--reply", min=1),
    ] = None


def heat(arguments: HeatArguments) -> None:
    """Draw a reply in colours that say how many tokens each step gave: here, or in a file.

    nfox -p "Tell me about foxes." --json | nfox heat - --out foxes.html
    """
    check_heat_file(arguments.out)
    source, number = arguments.source, arguments.reply
    from .log.entry import id_of

    conversation = id_of(source)
    if conversation is not None and not Path(source).exists():
        map = _logged(conversation, number)
    else:
        maps = list(read_heat_maps(source))
        map = maps[_place(len(maps), number, source)]
    if arguments.out is None:
        _show(map)
    else:
        write_heat(map, arguments.out, f"{source} is whole")
        say(f"heat map written to {arguments.out}")


def check_heat_file(file: Path | None) -> None:
    """Check that a heat map can be written to a file, before there is one.

    Args:
        file: the path; None if none is to be written.

    Raises:
        UsageError: if its name does not say what it holds, or it cannot be written.
    """
    if file is None:
        return
    from .display.heat_document import ENDINGS

    if file.suffix.lower() not in ENDINGS:
        raise UsageError(f"{file}: expected a file that ends in {' or '.join(ENDINGS)}")
    check_out(file, "heat map")


def write_heat(map: HeatMap, file: Path, not_lost: str) -> None:
    """Write a heat map to a file.

    Args:
        map: the heat map.
        file: a path that passed `check_heat_file`.
        not_lost: what is not lost if that fails, for the error.
    """
    from .display.heat_document import FORMATS

    write_out(file, FORMATS[file.suffix.lower()](map), not_lost)


def _place(count: int, number: int | None, where: str) -> int:
    """Return the index of the reply that is asked for.

    Args:
        count: how many there are.
        number: the one that is asked for, from 1; None for the last one.
        where: what holds them.

    Raises:
        UsageError: if there is none, or no such one.
    """
    if not count:
        raise UsageError(f"{where}: there is no whole reply", f"expected {_EXPECTED}")
    if (number or count) > count:
        raise UsageError(f"{where}: there is no reply {number}, it has {count}")
    return (number or count) - 1


def _logged(conversation: int, number: int | None) -> HeatMap:
    """Return the heat map of a reply in the log."""
    from nfox.files.reading import refusing

    from .heat_events import read_made
    from .log.database import ConversationLog

    entry, where = ConversationLog().read(conversation), f"conversation {conversation}"
    replies = [row for row in entry.rows if row.role == "assistant"]
    row = replies[_place(len(replies), number, where)]
    with refusing(where, hint="replies that an earlier nfox logged have no steps"):
        return read_made(entry.model, row.content, row.made or "{}")


def read_heat_maps(name: str) -> Iterator[HeatMap]:
    """Yield the heat maps of the replies in a file of events.

    Args:
        name: the path of the file; "-" for stdin.

    Raises:
        UsageError: if it is no such file.
    """
    from nfox.files.reading import parse_json, read_text, refusing

    from . import standard_input
    from .heat_events import Replies

    where = standard_input.NAME if name == _STDIN else name
    text = standard_input.read_all() if name == _STDIN else read_text(Path(name), _EXPECTED)
    replies = Replies()
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"{where}, line {number}"
            with refusing(place, _EXPECTED):
                if (map := replies.take(parse_json(line, place))) is not None:
                    yield map


def _show(map: HeatMap) -> None:
    """Draw a heat map on stdout."""
    from .display.heat_map import print_heat_map
    from .display.theme import make_screen

    screen = make_screen(DisplayArguments())
    print_heat_map(map, screen)


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("heat")(grouped(heat))
