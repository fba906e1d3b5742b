"""A reply as a heat map: the text of each step in a colour that says how many tokens the step gave.

The colours are those of ColorBrewer's "Blues", darker or, on a dark ground, brighter with every
token: whoever sees no colours, or prints without, sees the order. A single token has none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.style import Style
from rich.text import Text

from nfox.counting import counted
from nfox.text.pieces import Piece, text_of

from .palettes import PALETTES
from .reply_view import clean
from .theme import Screen

_DARK_INK, _LIGHT_INK = "#14171a", "#ffffff"
LIGHT = {
    **{2: ("#deebf7", _DARK_INK), 3: ("#c6dbef", _DARK_INK), 4: ("#9ecae1", _DARK_INK)},
    **{5: ("#6baed6", _DARK_INK), 6: ("#4292c6", _DARK_INK), 7: ("#2171b5", _LIGHT_INK)},
    8: ("#084594", _LIGHT_INK),
}
"""On a light ground: the colours of a band and of its text, by its level."""
DARK = {
    **{2: ("#08306b", _LIGHT_INK), 3: ("#08519c", _LIGHT_INK), 4: ("#2171b5", _LIGHT_INK)},
    **{5: ("#4292c6", _DARK_INK), 6: ("#6baed6", _DARK_INK), 7: ("#9ecae1", _DARK_INK)},
    8: ("#deebf7", _DARK_INK),
}
"""The same on a dark ground."""
HIGHEST = max(LIGHT)
"""The level of all steps that gave as many tokens or more."""
MEANING = "tokens per step"


@dataclass(frozen=True)
class Band:
    """The text that a step completed.

    Args:
        text: one character or more.
        step: the index of the step.
        length: how many tokens the step gave.
    """

    text: str
    step: int
    length: int

    @property
    def level(self) -> int:
        """The level of its colour."""
        return level_of(self.length)

    @property
    def told(self) -> str:
        """Which step it is, and what it gave, in words."""
        return f"step {self.step + 1}: {self.length} token{'s' * (self.length != 1)}"


@dataclass(frozen=True)
class HeatMap:
    """A reply, step by step.

    Args:
        bands: its text.
        lengths: how many tokens each step gave.
        model: the name of the model.
        method: the name of the method.
        tokens_per_second: its decoding speed.
    """

    bands: Sequence[Band]
    lengths: Sequence[int]
    model: str
    method: str
    tokens_per_second: float

    @property
    def facts(self) -> str:
        """The method and the numbers of the reply, in a line."""
        tokens, steps = sum(self.lengths), len(self.lengths)
        speed = f"τ {tokens / max(steps, 1):.2f} · {self.tokens_per_second:.1f} tokens/s"
        return f"{self.method} · {speed} · {counted(tokens, 'token')} in {counted(steps, 'step')}"

    def legend(self) -> Iterator[tuple[int, str, str]]:
        """Yield the levels up to the highest that there is, each with its name, and with the number
        of its steps; "" where it has none.
        """
        counts = Counter(map(level_of, self.lengths))
        for level in range(1, max(counts, default=0) + 1):
            steps = f"{counts[level]}x" if counts[level] else ""
            yield level, f"{level}{'+' * (level == HIGHEST)}", steps


def level_of(length: int) -> int:
    """Return the level of the colour of a step that gave so many tokens, from 1 to `HIGHEST`."""
    return min(max(length, 1), HIGHEST)


def bands_of(pieces: Sequence[Piece], lengths: Sequence[int]) -> list[Band]:
    """Return the bands of a reply.

    Args:
        pieces: its text, with the steps that completed it.
        lengths: how many tokens each step gave.
    """
    by_step = groupby((piece for piece in pieces if piece.text), lambda piece: piece.step)
    return [Band(text_of(list(part)), step, lengths[step]) for step, part in by_step]


def print_heat_map(heat: HeatMap, screen: Screen) -> None:
    """Print a heat map. Each band ends with its number of tokens; a single one is told only where
    there are no colours.

    Args:
        heat: the heat map.
        screen: the screen to print on.
    """
    console, symbols = screen.console, screen.symbols
    accepted = screen.styles["accepted"].color
    is_light = accepted is not None and accepted.name == PALETTES["light"].accepted
    palette = LIGHT if is_light else DARK
    styles = {level: Style(bgcolor=back, color=ink) for level, (back, ink) in palette.items()}
    is_coloured = console.color_system is not None and not console.no_color
    facts = heat.facts.replace(" · ", symbols.dot).replace("τ", symbols.tau)
    legend = Text(f"{MEANING}:")
    for level, name, steps in heat.legend():
        if not (steps or is_coloured):
            continue
        legend.append(" ").append(f" {name} ", styles.get(level, "")).append(steps)
    text = Text()
    for band in heat.bands:
        shown = clean(band.text).replace("\n", f"{symbols.newline}\n")
        body = shown.removesuffix("\n")
        number = "" if is_coloured and band.length == 1 else symbols.depth(band.length)
        text.append(body + number, styles.get(band.level, "")).append(shown[len(body) :])
    console.print(Text(clean(heat.model)), Text(facts), legend, Text(), text, sep="\n")
