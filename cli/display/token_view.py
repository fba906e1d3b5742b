"""A reply token by token: where each begins and ends, and of which source it is."""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style
from rich.text import Text

from .steps import StepRecord, visible
from .theme import Screen

_DIM = Style(dim=True)


def token_view(records: Sequence[StepRecord], screen: Screen) -> Text:
    """Return the tokens of a reply with seams between them and their spaces visible; a new row
    begins behind a newline.

    Args:
        records: the steps of the reply.
        screen: how tokens of each source are marked.
    """
    view = Text()
    for record in records:
        for token, source in zip(record.tokens, record.sources, strict=True):
            opening, closing = screen.brackets.get(source, ("", ""))
            shown = opening + visible(token, screen.symbols) + closing
            view.append(shown, screen.styles[source])
            view.append(screen.symbols.seam + ("\n" if "\n" in token else ""), _DIM)
    return view
