"""A reply that goes round in a circle until it is cut: how that is seen, and what ends it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nfox.reply import Reply, Settings

_LEAST_TIMES = 4  # that a span stands there: three equal verses or rows are no circle
_LEAST_TOKENS = 64  # of all of them together
_LONGEST = 256  # tokens of a span


def repeated_span(ids: Sequence[int]) -> int:
    """Return of how many tokens the shortest span is that a text ends with many times in a row, the
    last time perhaps not to its end; 0 if it ends with none.

    Args:
        ids: the token ids of the text.
    """
    for length in range(1, min(len(ids) // _LEAST_TIMES, _LONGEST) + 1):
        end = ids[-max(_LEAST_TIMES * length, _LEAST_TOKENS) :]
        if len(end) >= _LEAST_TOKENS and end[length:] == end[:-length]:
            return length
    return 0


def repeats_itself(reply: Reply) -> bool:
    """Return whether a reply was cut by a limit of tokens while it repeated itself."""
    return reply.finish in ("length", "context") and repeated_span(reply.ids) > 0


def hint(settings: Settings, option: str) -> str:
    """Return the line that says that a reply repeats itself, and what often ends that.

    Args:
        settings: of the reply.
        option: by which the penalty of repetitions is set, up to its value.
    """
    penalty = settings.sampling.repetition_penalty + 0.1
    return f"the reply repeats itself; {option}{penalty:.2g} often ends that"
