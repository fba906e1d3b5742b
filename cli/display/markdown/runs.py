"""What is shown of a source: stretches in one style, each with the sources of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from rich.style import Style
from rich.text import Text

from ..theme import Screen

if TYPE_CHECKING:
    from nfox.decoding.tree import Source

_OURS: list[Source] = ["bonus"]
PLAIN, DIM = Style(), Style(dim=True)


class Marked(NamedTuple):
    """A text and for each of its characters the source of the tokens that it comes from.

    Args:
        text: the text.
        sources: as many sources as the text has characters.
    """

    text: str
    sources: list[Source]

    def part(self, start: int, end: int | None = None) -> Marked:
        """Return a part of it."""
        return Marked(self.text[start:end], self.sources[start:end])


class Run(NamedTuple):
    """A stretch that is shown in one style.

    Args:
        text: what is shown.
        style: its style, without the marks of sources.
        sources: the source of each character; empty for what is ours.
        start: where its first character stands in what it was parsed from; None for what is ours.
        is_code: whether it has colours of its own.
    """

    text: str
    style: Style = PLAIN
    sources: list[Source] = []  # noqa: RUF012, nobody changes it
    start: int | None = None
    is_code: bool = False


class Block(NamedTuple):
    """A block, or as much of it as there is.

    Args:
        text: what is shown.
        lines: how many lines of the source it takes.
        is_over: whether it is all of it.
        certain: the number of characters that are shown as they are now, whatever follows.
    """

    text: Text
    lines: int
    is_over: bool = True
    certain: int = 0


def joined(lines: Sequence[Marked]) -> Marked:
    """Return lines as one text."""
    sources: list[Source] = []
    for number, line in enumerate(lines):
        sources += ["bonus", *line.sources] if number else line.sources
    return Marked("\n".join(line.text for line in lines), sources)


def before(runs: Sequence[Run], place: int) -> list[Run]:
    """Return the runs of what stands before a place of the source.

    What is ours goes along with what follows it.
    """
    kept: list[Run] = []
    held: list[Run] = []
    for run in runs:
        if run.start is None:
            held.append(run)
            continue
        count = max(place - run.start, 0)
        if count:
            kept += [*held, run._replace(text=run.text[:count], sources=run.sources[:count])]
            held = []
        if count < len(run.text):
            break
    return kept


def paint(runs: Sequence[Run], screen: Screen, *, closed: bool = True) -> Text:
    """Return what is shown, with the marks of sources over it.

    Args:
        runs: what is shown.
        screen: how sources are marked.
        closed: whether a bracket that is open at the end is closed.
    """
    text = Text()
    last: Source = "bonus"
    for run in runs:
        styles = screen.code_styles if run.is_code else screen.styles
        at = 0
        for source, group in groupby(run.sources or _OURS * len(run.text)):
            count = len(list(group))
            if source != last and screen.brackets:
                text.append(_between(last, source, screen))
            text.append(run.text[at : at + count], run.style + styles[source])
            at, last = at + count, source
    if closed and screen.brackets:
        text.append(_between(last, "bonus", screen))
    return text


def _between(last: Source, source: Source, screen: Screen) -> str:
    """Return the closing bracket of one source and the opening one of another."""
    nothing = ("", "")
    return screen.brackets.get(last, nothing)[1] + screen.brackets.get(source, nothing)[0]
