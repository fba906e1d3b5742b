"""How replies look: colours and marks for the three sources of a token, symbols, and the console.

Blue and orange differ for every kind of colour vision. Underline carries the meaning alone where
there is no colour, and brackets do where there is neither.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from rich.console import Console
from rich.style import Style

from ..options.chat import DisplayArguments, Theme
from .console import CleanConsole

if TYPE_CHECKING:
    from nfox.decoding.tree import Source

PALETTES: dict[Theme, tuple[str, str]] = {  # accepted, corrected: 4.5:1 on their backgrounds
    "auto": ("#0077cd", "#b45e00"),  # on black and on white
    "dark": ("#56b4e9", "#e69f00"),
    "light": ("#00619f", "#8f4a00"),
}


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

    def depth(self, number: int) -> str:
        """Return a draft depth in raised digits, which stand apart from a token's text."""
        return "".join(self.raised[int(digit)] for digit in str(number))


ASCII = Symbols(
    *(" | ", "tau", "...", "_", "\\n", "+", "x", ".:-=+*#@"),
    *(("[", "]"), "0123456789T", "#=.", ("|-", "`-", "| ", " - ")),
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
    """

    console: Console
    symbols: Symbols
    styles: dict[Source, Style]
    brackets: dict[Source, tuple[str, str]]
    live: bool

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
    return Screen(
        console,
        symbols,
        _styles(mode, _palette(display.theme), console),
        _brackets(mode, symbols),
        live,
    )


def _palette(theme: Theme) -> tuple[str, str]:
    """Return the colours of accepted and of corrected tokens in a theme.

    The theme "auto" follows COLORFGBG, by which some terminals tell their background.
    """
    background = os.environ.get("COLORFGBG", "").rpartition(";")[2]
    if theme == "auto" and background.isdecimal():
        theme = "light" if int(background) in (7, 15) else "dark"
    return PALETTES[theme]


def theme_for(background: str) -> Theme:
    """Return the theme whose colours are easier to read on a background.

    Args:
        background: a colour, as "#rrggbb".
    """
    themes: tuple[Theme, Theme] = ("dark", "light")
    return max(themes, key=lambda theme: min(contrast(c, background) for c in PALETTES[theme]))


def contrast(color: str, background: str) -> float:
    """Return the contrast ratio of two colours, written as "#rrggbb": 1 to 21 (WCAG 2.2)."""
    low, high = sorted(map(_luminance, (color, background)))
    return (high + 0.05) / (low + 0.05)


def _luminance(color: str) -> float:
    """Return the relative luminance of a colour."""
    channels = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    red, green, blue = (
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
        for channel in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _styles(mode: str, palette: tuple[str, str], console: Console) -> dict[Source, Style]:
    """Return the style of each source, for a mode of --provenance."""
    accepted, corrected = palette
    colored, underlined = mode in ("auto", "color"), mode in ("auto", "underline")
    plain = console.no_color or not colored
    return {
        "accepted": Style(color=accepted if colored else None, underline=underlined or None),
        # Without colour, a correction needs a mark of its own.
        "corrected": Style(
            color=corrected if colored else None, italic=(plain and underlined) or None
        ),
        "bonus": Style(),
    }


def _brackets(mode: str, symbols: Symbols) -> dict[Source, tuple[str, str]]:
    """Return the brackets of each source, for a mode of --provenance."""
    if mode != "brackets":
        return {}
    return {"accepted": symbols.brackets, "corrected": ("{", "}")}
