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
_HOME, _REST_OF_ROW, _REST, _NO_CURSOR = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[?25l"
_CURSOR = "\x1b[?25h\r\n"


def recording(picture: RacePicture) -> str:
    """Return the recording of a race as it is played, in 80 by 24 cells.

    Args:
        picture: of the race.
    """
    names = ", ".join(run.name for run in picture.race.runs)
    head = {"version": 2, "width": _WIDTH, "height": _HEIGHT, "title": f"nfox race: {names}"}
    return "".join(json_text(line) + "\n" for line in (head, *_events(picture)))


def _events(picture: RacePicture) -> Iterator[list[Any]]:
    """Yield the frames that differ from the one before, each with the second it is drawn at."""
    screen, before = _screen(), ""
    seconds, slowness = 0.0, picture.slowness
    end = picture.race.seconds * slowness
    while True:
        frame = _drawn(picture, screen, None if seconds == end else seconds / slowness)
        if frame != before:
            hide = "" if before else _NO_CURSOR
            yield [round(seconds, 3), "o", hide + frame]
        before = frame
        if seconds >= end:
            break
        seconds = min(seconds + FRAME, end)
    yield [round(end + _STAY, 3), "o", _CURSOR]


def _drawn(picture: RacePicture, screen: Screen, seconds: float | None) -> str:
    """Return what draws a frame over the one before."""
    with screen.console.capture() as captured:
        screen.console.print(picture.frame(screen, seconds))
        screen.console.print(picture.note, style="dim")
    rows = captured.get().splitlines()[:_HEIGHT]
    return _HOME + "\r\n".join(row + _REST_OF_ROW for row in rows) + _REST


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
