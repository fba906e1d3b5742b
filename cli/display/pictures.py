"""Pictures: anything that rich draws, printed on the terminal and saved as the same drawing in SVG.

A picture names its colours "right", "close" and "far"; what they are depends on where it is drawn.
It must be readable without them, since a terminal may have none.
"""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

from rich.color import Color
from rich.console import RenderableType
from rich.segment import Segments
from rich.style import Style
from rich.theme import Theme

from nfox.controls import sanitize
from nfox.errors import UsageError

from ..output_files import check_out, write_out
from .console import CleanConsole
from .palettes import PALETTES
from .theme import Screen

COLORS = ("right", "close", "far")
_FONT = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_WIDEST = 1000  # columns of a picture


def check_file(file: Path | None) -> None:
    """Check that a picture can be written to a file, before there is anything to draw.

    Args:
        file: the path to write to; None if no picture is to be written.

    Raises:
        UsageError: if it is not named as an SVG, or cannot be written.
    """
    if file is None:
        return
    if file.suffix.lower() != ".svg":
        raise UsageError(f"pictures are written as SVG, not as {file}", "end its name in .svg")
    check_out(file, "picture")


def draw(picture: RenderableType, screen: Screen) -> None:
    """Print a picture: cut at the edge of a terminal, plain and whole into a pipe.

    Args:
        picture: what rich draws.
        screen: the screen to print it on.
    """
    console, styles = screen.console, screen.styles
    with console.use_theme(_theme(styles["accepted"].color, styles["corrected"].color)):
        segments = console.render(picture, console.options.update(max_width=_WIDEST))
        console.print(Segments(segments), crop=console.is_terminal)


def save(picture: RenderableType, file: Path, title: str = "") -> None:
    """Write a picture to an SVG file that is as wide as the picture, whatever the terminal is.

    Args:
        picture: what rich draws.
        file: the path of the SVG.
        title: the title that stands in the SVG.

    Raises:
        NfoxError: if it cannot be written.
    """
    canvas = CleanConsole(
        record=True,
        file=StringIO(),
        theme=_theme(PALETTES["dark"].accepted, PALETTES["dark"].corrected),  # as rich's SVG is
        color_system="truecolor",
        force_terminal=True,
        no_color=False,
        legacy_windows=False,
        highlight=False,
        width=_WIDEST,
        height=1,  # with both given, nothing around says how wide it is
    )
    canvas.width = canvas.measure(picture).maximum
    canvas.print(picture)
    # Rich's font would be fetched from the web by whoever looks at the picture.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", canvas.export_svg(title=title), flags=re.DOTALL)
    write_out(file, sanitize(svg.replace("Fira Code, monospace", _FONT)))


def _theme(right: str | Color | None, close: str | Color | None) -> Theme:
    """Return the styles of `COLORS`; what is far off is dim."""
    styles = (Style(color=right), Style(color=close), Style(dim=True))
    return Theme(dict(zip(COLORS, styles, strict=True)))
