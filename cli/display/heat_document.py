"""A heat map as a file: an HTML page whose text can be copied, and an SVG for papers.

Both hold all that they need, have no scripts, and follow the reader's choice of light or dark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from nfox.controls import one_line, sanitize

from .console import CleanConsole
from .heat_map import DARK, LIGHT, MEANING, HeatMap
from .reply_view import clean
from .theme import Symbols

_FONT = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_INK, _DIM, _BACK = ("#1d1f21", "#e4e6e8"), ("#5c6166", "#a0a6ac"), ("#ffffff", "#16181a")
_COLUMNS = 80  # of an SVG
_CELL, _ROW, _SIZE, _EDGE = 8.4, 24, 14, 16  # pixels
_NEWLINE = Symbols.newline
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def html(heat: HeatMap) -> str:
    """Return a heat map as a page."""
    title = _text(one_line(heat.model))
    legend = "".join(
        f'<span class="n{level}">{name}</span>{steps} ' for level, name, steps in heat.legend()
    )
    bands = "".join(
        f'<span class="n{band.level}" title="{band.told}">{_with_newlines(band.text)}</span>'
        for band in heat.bands
    )
    return f"""<!doctype html>
<html lang="">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: {_text(heat.facts)}</title>
<style>
{_colours("color", "background")}
:root {{ color-scheme: light dark; }}
body {{ margin: 2rem auto; max-width: 52rem; padding: 0 1rem; }}
body {{ font: 16px/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 1.3rem; margin: 0; overflow-wrap: anywhere; }}
p {{ margin: .3rem 0; }}
pre {{ font: 15px/1.7 {_FONT}; white-space: pre-wrap; overflow-wrap: anywhere; margin: 1.5rem 0; }}
span {{ border-radius: 3px; padding: .15em 0; box-shadow: inset 1px 0 var(--back); }}
.legend span {{ padding: .15em .5em; margin: 0 .3em 0 .5em; font-family: {_FONT}; }}
.legend .n1 {{ outline: 1px solid var(--line); }}
i::before {{ content: "{_NEWLINE}"; opacity: .5; font-style: normal; }}
</style>
<h1>{title}</h1>
<p>{_text(heat.facts)}</p>
<p class="legend dim">{MEANING}{legend}</p>
<pre>{bands}</pre>
"""


def svg(heat: HeatMap) -> str:
    """Return a heat map as a picture."""
    text = Text()
    for number, band in enumerate(heat.bands):
        shown = clean(band.text).replace("\n", f"{_NEWLINE}\n")
        text.append(shown, Style(meta={"band": number, "class": f"n{band.level}"}))
    legend = Text().append(MEANING, Style(meta={"class": "dim"}))
    for level, name, steps in heat.legend():
        legend.append(" ").append(f" {name} ", Style(meta={"class": f"n{level}"}))
        legend.append(steps, Style(meta={"class": "dim"}))
    title = Text().append(clean(one_line(heat.model)), Style(meta={"class": "title"}))
    rows = [row for part in (title, Text(heat.facts), legend, Text(), text) for row in _rows(part)]
    width, height = round(_COLUMNS * _CELL + 2 * _EDGE), len(rows) * _ROW + 2 * _EDGE
    drawn = "\n".join(
        part for y, row in enumerate(rows) for part in _drawn(row, _EDGE + y * _ROW, heat)
    )
    name = _text(f"{one_line(heat.model)}: {heat.facts}")
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
width="{width}" height="{height}" role="img">
<title>{name}</title>
<style>
{_colours("fill", "fill", "rect")}
text {{ font: {_SIZE}px {_FONT}; white-space: pre; }}
.title {{ font-weight: bold; }}
</style>
<rect class="back" width="{width}" height="{height}"/>
{drawn}
</svg>
"""


def _rows(text: Text) -> list[Text]:
    """Return the rows of a text."""
    return list(text.wrap(CleanConsole(width=_COLUMNS), _COLUMNS, overflow="fold"))


def _drawn(row: Text, top: int, heat: HeatMap) -> Iterator[str]:
    """Yield the elements of a row, a text on a ground for each stretch of one style."""
    x = float(_EDGE)
    for segment in row.render(CleanConsole(width=_COLUMNS)):
        content, meta = segment.text.rstrip("\n"), segment.style.meta if segment.style else {}
        cells = cell_len(content)
        if not cells:
            continue
        name, band = meta.get("class", "ink"), meta.get("band")
        told = "" if band is None else f"<title>{heat.bands[band].told}</title>"
        width = cells * _CELL
        if name[1:].isdecimal():
            yield (
                f'<rect class="{name}" x="{x + 0.5:.1f}" y="{top}" width="{width - 1:.1f}" '
                f'height="{_ROW - 2}" rx="3">{told}</rect>'
            )
        if content.strip():
            yield (
                f'<text class="{name}" x="{x:.1f}" y="{top + _SIZE + 2}" '
                f'textLength="{width:.1f}" xml:space="preserve">{_text(content)}{told}</text>'
            )
        x += width


def _colours(ink: str, back: str, box: str = "") -> str:
    """Return the rules of CSS for all colours, light and dark.

    Args:
        ink: the property of a text's colour.
        back: the property of a band's.
        box: the element of a band, if that is another one than its text's.
    """

    def rules(number: int, palette: Mapping[int, tuple[str, str]]) -> Iterator[str]:
        yield f":root {{ --back: {_BACK[number]}; --line: {_DIM[number]}; }}"
        yield f"body, .ink, .title, text.n1 {{ {ink}: {_INK[number]}; }}"
        yield f".dim {{ {ink}: {_DIM[number]}; }}"
        yield f"body, .back, rect.n1 {{ {back}: {_BACK[number]}; }}"
        for level, (colour, on_it) in palette.items():
            yield f"{box}.n{level} {{ {back}: {colour}; }}"
            yield f"{'text' if box else ''}.n{level} {{ {ink}: {on_it}; }}"

    light, dark = "\n".join(rules(0, LIGHT)), "\n".join(rules(1, DARK))
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}"


def _with_newlines(text: str) -> str:
    """Return a text as HTML, its newlines visible but not copied."""
    return "<i></i>\n".join(map(_text, text.split("\n")))


def _text(text: str) -> str:
    return escape(sanitize(text))


FORMATS: dict[str, Callable[[HeatMap], str]] = {".html": html, ".svg": svg}
"""The forms of a heat map in a file, by the ending of its name."""
ENDINGS: Sequence[str] = tuple(FORMATS)
"""The endings of files that heat maps are written to."""
