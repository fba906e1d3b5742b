"""A race as a recording that asciinema plays, in its format 2: a line of JSON for each frame.

<https://docs.asciinema.org/manual/asciicast/v2/>
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from typing import TYPE_CHECKING, Any

from nfox.controls import json_text

from ..options.chat import DisplayArguments
from .console import CleanConsole
from .race_picture import FRAME
from .theme import Screen, make_screen

if TYPE_CHECKING:
    from .race_picture import RacePicture

_WIDTH, _HEIGHT = 80, 24  # cells
_STAY = 3.0  # seconds that the end is shown
_BEGIN, _END = "\x1b[?25l\x1b[2J", "\x1b[?25h"  # no cursor, and nothing drawn yet
_ERASE_ROW = "\x1b[2K"


def recording(picture: RacePicture) -> str:
    """Return the recording of a race as it is played, in 80 by 24 cells.

    Args:
        picture: of the race.
    """
    names = ", ".join(run.name for run in picture.race.runs)
    head = {"version": 2, "width": _WIDTH, "height": _HEIGHT, "title": f"nfox race: {names}"}
    return "".join(json_text(line) + "\n" for line in (head, *_events(picture)))


def _events(picture: RacePicture) -> Iterator[list[Any]]:
    """Yield what changes, frame by frame, each with the second it is drawn at."""
    screen, before = _screen(), [""] * _HEIGHT
    seconds, slowness = 0.0, picture.slowness
    end = picture.race.seconds * slowness
    yield [0.0, "o", _BEGIN]
    while True:
        rows = _rows(picture, screen, None if seconds == end else seconds / slowness)
        changed = "".join(
            f"\x1b[{number};1H{_ERASE_ROW}{row}"
            for number, row in enumerate(rows, 1)
            if row != before[number - 1]
        )
        if changed:
            yield [round(seconds, 3), "o", changed]
        before = rows
        if seconds >= end:
            break
        seconds = min(seconds + FRAME, end)
    yield [round(end + _STAY, 3), "o", f"\x1b[{_HEIGHT};1H{_END}"]


def _rows(picture: RacePicture, screen: Screen, seconds: float | None) -> list[str]:
    """Return the rows of a frame."""
    with screen.console.capture() as captured:
        screen.console.print(picture.frame(screen, seconds))
        screen.console.print(picture.note, style="dim")
    rows = captured.get().splitlines()[:_HEIGHT]
    return rows + [""] * (_HEIGHT - len(rows))


def _screen() -> Screen:
    """Return a screen of that size with all colours, whatever the terminal is."""
    console = CleanConsole(
        file=StringIO(),
        force_terminal=True,
        color_system="truecolor",
        no_color=False,
        legacy_windows=False,
        width=_WIDTH,
        height=_HEIGHT,
    )
    display = DisplayArguments(color="always", theme="dark")
    return replace(make_screen(display, StringIO()), console=console)
