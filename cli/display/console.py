"""The console on which everything is drawn: whatever a text holds, none of it steers the terminal.

Rich makes escape sequences of styles, behind this; those that stand in a text do not get there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text
from typing_extensions import override

from nfox.controls import sanitize

_NARROWEST = 24  # cells beside an indent, below which continued lines begin at the edge


def hanging(text: Text, indent: int, width: int) -> Text:
    """Return a line whose continued rows are indented.

    Args:
        text: the line.
        indent: the cells, and characters, of the name that it begins with.
        width: the cells of a row.
    """
    if not indent or width - indent < _NARROWEST:
        return text
    rows = text[indent:].wrap(CleanConsole(width=width), width - indent)
    for row in rows:
        row.rstrip()
    return text[:indent] + Text(f"\n{' ' * indent}").join(rows)


class CleanConsole(Console):
    """A rich console that leaves control characters out of texts, and takes no part of them for
    markup: a name may have brackets, or be written like an emoji.

    Args:
        options: of rich's console.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "highlight": False, "emoji": False, **options})

    @override
    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else sanitize(segment.text)
            yield segment if text is segment.text else segment._replace(text=text)
