"""`nfox heat`: a reply from its JSON lines as a heat map of accepted lengths."""

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

    events: Annotated[
        str, typer.Argument(metavar="FILE", help="What nfox -p TEXT --json wrote; - for stdin.")
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
    map = _choose(list(read_heat_maps(arguments.events)), arguments)
    if arguments.out is None:
        _show(map)
    else:
        write_heat(map, arguments.out, "the JSON lines are whole")
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


def _choose(maps: list[HeatMap], arguments: HeatArguments) -> HeatMap:
    """Return the heat map of the reply that is asked for."""
    number = arguments.reply or len(maps)
    if not maps:
        raise UsageError(f"{arguments.events}: there is no whole reply", _EXPECTED)
    if number > len(maps):
        raise UsageError(f"{arguments.events}: there is no reply {number}, it has {len(maps)}")
    return maps[number - 1]


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
