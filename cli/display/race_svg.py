"""A race as one SVG that moves by itself: no script, no font, nothing to fetch.

Each column holds its whole text from the beginning, under a cover of the background's colour: the
rest of one row and all rows below. A step moves the cover, which takes a dozen bytes. Whose system
asks for no motion sees the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from io import StringIO
from itertools import groupby
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from nfox.controls import one_line, sanitize

from .console import CleanConsole
from .palettes import PALETTES
from .reply_view import clean
from .theme import Symbols

if TYPE_CHECKING:
    from nfox.race import Run

    from ..options.chat import Theme
    from .race_picture import RacePicture

_CELL, _ROW, _MARGIN = 8, 18, 16  # pixels
_BASE = 13  # pixels from the top of a row to where its letters stand
_ALL = 80  # cells of all columns together, unless they would be too narrow
_NARROWEST, _GAP = 30, 3  # cells of a column, and between two
_STAY = 4.0  # seconds that the end is shown
_COVER = "M0 0H999V999H-999V1H0z"  # in cells: from one on to the end, in the order of reading
_FONT = "font:13.3px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace"
_COLORS: dict[
    Theme, tuple[str, str, str]
] = {  # background, text, and what is less important: at least 4.5:1
    "dark": ("#14171c", "#d6d9de", "#9aa3ad"),
    "light": ("#fff", "#1f2328", "#59636e"),
}
_CLASSES = {"accepted": "a", "corrected": "c", "bonus": ""}
_SYMBOLS = Symbols()


@dataclass(frozen=True)
class _Line:
    """A row of text.

    Args:
        spans: its parts, each with the class of its look; "" for none.
    """

    spans: tuple[tuple[str, str], ...] = ()

    def element(self, left: int, top: int) -> str:
        """Return it at a place, as wide as its cells are, whatever font there is."""
        markup, cells = "", 0
        for name, parts in groupby(self.spans, key=lambda span: span[1]):
            text = "".join(text for text, _ in parts)
            cells += cell_len(text)
            words = escape(text, quote=False).replace(" ", "\u00a0")  # none is left out
            markup += f'<tspan class="{name}">{words}</tspan>' if name else words
        if not markup:
            return ""
        x = f' x="{left}"' if left else ""
        return f'<text{x} y="{top + _BASE}" textLength="{cells * _CELL}">{markup}</text>\n'


@dataclass(frozen=True)
class _Column:
    """A method's place in the picture.

    Args:
        head: what stands there from the beginning.
        body: its text and what came of it.
        covers: by second, from which cell of which row on the body is covered then.
    """

    head: list[_Line]
    body: list[_Line]
    covers: dict[float, tuple[int, int]]


def animated(picture: RacePicture, prompt: str) -> str:
    """Return a complete race as it went, and then for a while as it ended, again and again.

    Args:
        picture: of the race.
        prompt: what was asked.
    """
    runs = picture.race.runs
    width = max((_ALL + _GAP) // len(runs) - _GAP, _NARROWEST)
    cells = len(runs) * (width + _GAP) - _GAP
    columns = [_column(picture, run, width) for run in runs]
    asked = one_line(f"> {prompt}")
    title = _wrapped(asked, cells, "b")
    under_title = (len(title) + 1) * _ROW
    under_heads = under_title + (max(len(column.head) for column in columns) + 1) * _ROW
    height = max(len(column.body) for column in columns)
    parts = [*_stacked(title)]
    for number, column in enumerate(columns):
        left = number * (width + _GAP) * _CELL
        parts += _stacked(column.head, left, under_title)
        size = f'width="{width * _CELL}" height="{height * _ROW}"'
        parts.append(f'<svg x="{left}" y="{under_heads}" {size}>\n')
        parts += _stacked(column.body)
        parts.append(_cover(column, picture) + "</svg>\n")
    note = _wrapped(picture.note, cells, "d")
    under_columns = under_heads + (height + 1) * _ROW
    parts += _stacked(note, 0, under_columns)
    return _document(asked, cells * _CELL, under_columns + len(note) * _ROW, parts)


def _document(title: str, width: int, height: int, parts: Iterable[str]) -> str:
    """Return the SVG of some parts that take so many pixels, with a margin."""
    style = f"text{{{_FONT}}}.a{{text-decoration:underline}}.b{{font-weight:700}}{_colors('dark')}"
    style += f"@media(prefers-color-scheme:light){{{_colors('light')}}}"
    style += "@media(prefers-reduced-motion:reduce){path{display:none}}"
    size = f'width="{width + 2 * _MARGIN}" height="{height + 2 * _MARGIN}"'
    return sanitize(
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} '
        f'viewBox="{-_MARGIN} {-_MARGIN} {width + 2 * _MARGIN} {height + 2 * _MARGIN}">\n'
        f"<title>nfox race {escape(title, quote=False)}</title>\n<style>{style}</style>\n"
        f'<rect x="{-_MARGIN}" y="{-_MARGIN}" {size} rx="8"/>\n{"".join(parts)}</svg>\n'
    )


def _colors(theme: Theme) -> str:
    """Return the rules of a theme's colours."""
    (ground, text, dim), palette = _COLORS[theme], PALETTES[theme]
    names = ("rect,path", "text", ".d", ".a", ".c")
    colors = (ground, text, dim, palette.accepted, palette.corrected)
    return "".join(f"{name}{{fill:{color}}}" for name, color in zip(names, colors, strict=True))


def _column(picture: RacePicture, run: Run, width: int) -> _Column:
    """Return a run's column of some width."""
    stats = run.reply.stats
    speed = f"{stats.tokens_per_second:.1f} tok/s{_SYMBOLS.dot}{_SYMBOLS.tau} {stats.tau:.2f}"
    head = [*_wrapped(run.name, width, "b"), *_wrapped(speed, width, "d")]
    text, ends = _text(run, width)
    first, *rest = picture.results.summary(run, _SYMBOLS, width)
    foot = [*_wrapped(first, width, "b"), *_wrapped("\n".join(rest), width, "d")]
    body = [*text, _Line(), *foot]
    covers = {0.0: (0, 0)} | {run.moments[step].seconds: end for step, end in ends.items()}
    return _Column(head, body, covers | {run.seconds: (0, len(body))})


def _text(run: Run, width: int) -> tuple[list[_Line], dict[int, tuple[int, int]]]:
    """Return a run's text in rows of some width, and by step in which cell of which row it ended
    then.
    """
    text = Text()
    for step, moment in enumerate(run.moments):
        for piece in moment.pieces:
            text.append(
                clean(piece.text), Style(meta={"class": _CLASSES[piece.source], "step": step})
            )
    text = text[len(text.plain) - len(text.plain.lstrip()) :] or Text("(an empty reply)")
    console, rows, ends = CleanConsole(file=StringIO()), [], {}
    for number, row in enumerate(text.wrap(console, width)):
        row.rstrip()
        row.end, spans, cells = "", [], 0
        for part, style, _ in row.render(console):
            meta = style.meta if style else {}
            cells += cell_len(part)
            if "step" in meta:
                ends[meta["step"]] = (cells, number)
            spans.append((part, meta.get("class", "")))
        rows.append(_Line(tuple(spans)))
    return rows, ends


def _wrapped(text: str, width: int, name: str) -> list[_Line]:
    """Return a text of one look in rows of some width."""
    rows = Text(text).wrap(CleanConsole(file=StringIO()), width)
    return [_Line(((row.plain, name),)) for row in rows]


def _stacked(lines: Iterable[_Line], left: int = 0, top: int = 0) -> Iterator[str]:
    """Yield lines one below the other."""
    for number, line in enumerate(lines):
        yield line.element(left, top + number * _ROW)


def _cover(column: _Column, picture: RacePicture) -> str:
    """Return what covers that part of a column which was not said yet."""
    whole = picture.race.seconds * picture.slowness + _STAY
    moments = sorted(column.covers.items())
    places = ";".join(f"{x} {y}" for _, (x, y) in moments)
    times = ";".join(
        f"{seconds * picture.slowness / whole:.4f}".rstrip("0").rstrip(".")
        for seconds, _ in moments
    )
    return (
        f'<path d="{_COVER}" transform="scale({_CELL} {_ROW})">'
        f'<animateTransform attributeName="transform" type="translate" additive="sum" '
        f'calcMode="discrete" dur="{whole:.3f}s" repeatCount="indefinite" '
        f'values="{places}" keyTimes="{times}"/></path>'
    )
