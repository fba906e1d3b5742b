"""How replies look: colours and marks for the three sources of a token, symbols, and the console.

Blue and orange differ for every kind of colour vision. Underline carries the meaning alone where
there is no colour, and brackets do where there is neither.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from rich.console import Console
from rich.style import Style

from ..options.chat import DisplayArguments, Theme
from .console import CleanConsole
from .palettes import PALETTES, Palette

if TYPE_CHECKING:
    from nfox.decoding.tree import Source


@dataclass(frozen=True)
class Symbols:
    """Characters that an ASCII terminal lacks, or their stand-ins."""

    dot: str = " · "
    tau: str = "τ"
    ellipsis: str = "…"
    space: str = "·"
    newline: str = "↵"
    yes: str = "✓"
    no: str = "✗"
    bars: str = "▁▂▃▄▅▆▇█"
    brackets: tuple[str, str] = ("⟨", "⟩")
    raised: str = "⁰¹²³⁴⁵⁶⁷⁸⁹ᵀ"  # digits, and T for the target
    shades: str = "█▓░"  # of bars that lie one after the other
    guides: tuple[str, str, str, str] = ("├ ", "└ ", "│ ", " ─ ")  # fork, corner, line, link
    bullet: str = "•"
    quote: str = "▌ "
    rule: str = "─"
    boxes: tuple[str, str] = ("☐", "☑")  # of tasks to do, and done
    seam: str = "┊"  # between two tokens

    def depth(self, number: int) -> str:
        """Return a number in raised digits, which stand apart from a token's text."""
        digits = "".join(self.raised[int(digit)] for digit in str(number))
        return f"^{digits}" if digits.isascii() else digits


ASCII = Symbols(
    *(" | ", "tau", "...", "_", "\\n", "+", "x", ".:-=+*#@"),
    *(("[", "]"), "0123456789T", "#=.", ("|-", "`-", "| ", " - ")),
    bullet="*",
    quote="> ",
    rule="-",
    boxes=("[ ]", "[x]"),
    seam="|",
)


@dataclass(frozen=True)
class Screen:
    """A console, and how replies look on it.

    Args:
        console: the console on which replies are drawn.
        symbols: the characters that its encoding has.
        styles: the style of tokens by their source.
        brackets: what opens and closes tokens of a source, if anything does.
        live: whether a status row may be drawn below a growing reply.
        is_markdown: whether replies are rendered as Markdown.
        wraps_words: whether the rows of replies end between words.
        syntax: the styles of code, by the names of pygments' tokens.
        code_styles: the style of tokens by their source, over these.
    """

    console: Console
    symbols: Symbols
    styles: dict[Source, Style]
    brackets: dict[Source, tuple[str, str]]
    live: bool
    is_markdown: bool = False
    wraps_words: bool = False
    syntax: Mapping[str, Style] = field(default_factory=dict)
    code_styles: dict[Source, Style] = field(default_factory=dict)

    @property
    def code_color(self) -> Style:
        """The style of code in a sentence."""
        return self.syntax.get("Literal.String", Style())

    @property
    def marked(self) -> bool:
        """Whether tokens show their source, be it by colour, underlining or brackets."""
        seen = self.console.color_system is not None or self.console.no_color
        return bool(self.brackets) or (seen and any(self.styles.values()))


def make_screen(display: DisplayArguments, file: IO[str] | None = None) -> Screen:
    """Return the screen that the options ask for.

    Args:
        display: the options of the display.
        file: where replies are written; stdout by default.
    """
    file = file or sys.stdout
    color = "never" if display.no_color or display.style == "simple" else display.color
    console = CleanConsole(
        file=file,
        force_terminal=True if color == "always" else file.isatty(),
        no_color=True if color == "never" else None,
        soft_wrap=False,
    )
    symbols = ASCII if display.ascii or not console.encoding.startswith("utf") else Symbols()
    mode = display.provenance
    if mode == "auto" and (display.style == "simple" or not console.is_terminal):
        mode = "off"
    rich = display.style == "rich" and file.isatty() and not console.is_dumb_terminal
    live = display.live and rich and not console.legacy_windows and not display.quiet
    palette = _palette(display.theme)
    styles = _styles(mode, palette, console)
    has_colors = rich and console.color_system is not None and not console.no_color
    return Screen(
        console,
        symbols,
        styles,
        _brackets(mode, symbols),
        live,
        is_markdown=has_colors if display.render == "auto" else display.render == "markdown",
        wraps_words=display.word_wrap and rich,
        syntax=palette.syntax() if has_colors else {},
        code_styles=_code_styles(mode, palette, console) or styles,
    )


def _palette(theme: Theme) -> Palette:
    """Return the colours of a theme.

    The theme "auto" follows COLORFGBG, by which some terminals tell their background.
    """
    background = os.environ.get("COLORFGBG", "").rpartition(";")[2]
    if theme == "auto" and background.isdecimal():
        theme = "light" if int(background) in (7, 15) else "dark"
    return PALETTES[theme]


def _styles(mode: str, palette: Palette, console: Console) -> dict[Source, Style]:
    """Return the style of each source, for a mode of --provenance."""
    colored, underlined = mode in ("auto", "color"), mode in ("auto", "underline")
    plain = console.no_color or not colored
    return {
        "accepted": Style(
            color=palette.accepted if colored else None, underline=underlined or None
        ),
        # Without colour, a correction needs a mark of its own.
        "corrected": Style(
            color=palette.corrected if colored else None, italic=(plain and underlined) or None
        ),
        "bonus": Style(),
    }


def _code_styles(mode: str, palette: Palette, console: Console) -> dict[Source, Style]:
    """Return the style of each source in code, whose own colours stay: colours behind the text, or
    where these cannot be had, underlining and italics; none where colours of the text have to do.
    """
    is_exact = console.color_system == "truecolor" and not console.no_color  # others are too strong
    underline = (mode == "auto") or None
    if is_exact and palette.behind_accepted and mode in ("auto", "color"):
        return {
            "accepted": Style(bgcolor=palette.behind_accepted, underline=underline),
            "corrected": Style(bgcolor=palette.behind_corrected),
            "bonus": Style(),
        }
    if mode == "auto":
        return {
            "accepted": Style(underline=True),
            "corrected": Style(italic=True),
            "bonus": Style(),
        }
    return {}


def _brackets(mode: str, symbols: Symbols) -> dict[Source, tuple[str, str]]:
    """Return the brackets of each source, for a mode of --provenance."""
    if mode != "brackets":
        return {}
    return {"accepted": symbols.brackets, "corrected": ("{", "}")}
