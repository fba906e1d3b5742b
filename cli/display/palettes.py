"""The colours of a theme, and how well they can be read: at least 4.5:1 on backgrounds of its kind
(WCAG 2.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from rich.style import Style

from ..options.chat import Theme


@dataclass(frozen=True)
class Palette:
    """The colours of a theme.

    Args:
        accepted: accepted tokens.
        corrected: corrected ones.
        keyword: of code, as those that follow.
        string: of code.
        comment: of code.
        number: of code.
        name: of what code defines.
        behind_accepted: behind accepted tokens in code, which has colours of its own; "" where the
            background is not known.
        behind_corrected: behind corrected ones.
    """

    accepted: str
    corrected: str
    keyword: str
    string: str
    comment: str
    number: str
    name: str
    behind_accepted: str = ""
    behind_corrected: str = ""

    def in_front(self) -> list[str]:
        """Return the colours of texts."""
        return [getattr(self, f.name) for f in fields(self) if not f.name.startswith("behind")]

    def syntax(self) -> Mapping[str, Style]:
        """Return the styles of code, by the names of pygments' tokens."""
        colors = {
            **dict.fromkeys(("Keyword", "Operator.Word", "Name.Tag"), self.keyword),
            **dict.fromkeys(("Literal.String", "Generic.Inserted"), self.string),
            **dict.fromkeys(("Comment", "Generic.Deleted"), self.comment),
            **dict.fromkeys(("Literal.Number", "Name.Attribute"), self.number),
            **dict.fromkeys(("Name.Function", "Name.Class", "Name.Decorator"), self.name),
        }
        return {kind: Style(color=color) for kind, color in colors.items()}


PALETTES: dict[Theme, Palette] = {
    "auto": Palette(  # on black and on white
        *("#0077cd", "#b45e00", "#a64cd2", "#228732", "#757575", "#d22d9b", "#10828c")
    ),
    "dark": Palette(
        *("#56b4e9", "#e69f00", "#c9a0f5", "#8fd18f", "#b0b4ba", "#f2a3c0", "#7fd6d0"),
        *("#0f3347", "#463003"),
    ),
    "light": Palette(
        *("#00619f", "#8f4a00", "#6f2da8", "#1d6b2a", "#565a60", "#9c1f5c", "#0a6570"),
        *("#dcedfb", "#fbe6c8"),
    ),
}


def theme_for(background: str) -> Theme:
    """Return the theme whose colours are easier to read on a background.

    Args:
        background: a colour, as "#rrggbb".
    """

    def worst(theme: Theme) -> float:
        return min(contrast(color, background) for color in PALETTES[theme].in_front())

    return "dark" if worst("dark") >= worst("light") else "light"


def contrast(color: str, background: str) -> float:
    """Return the contrast ratio of two colours, written as "#rrggbb": 1 to 21."""
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
