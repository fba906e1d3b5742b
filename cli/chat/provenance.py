"""The sources of all replies of a chat, not of the last one alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nfox.text.pieces import Piece, text_of

if TYPE_CHECKING:
    from nfox.reply import Exchange
    from nfox.text.messages import Message

    from ..display.steps import StepRecord


@dataclass(frozen=True)
class Candidate:
    """One of several replies to a question, with all that commands about the last reply look at.

    Args:
        message: the reply, as it stands in the conversation.
        exchange: the reply, and what it was asked by; None where that is not known.
        known: the text of the message, with the sources of its tokens; none where they are not
            known.
        pieces: that of the reply, with which the message ends.
        records: its steps.
    """

    message: Message
    exchange: Exchange | None
    known: list[Piece]
    pieces: list[Piece]
    records: list[StepRecord]


class Provenance:
    """The pieces of every reply, by its place among the messages after the system message.

    Turns are taken back, answered again and replaced by others; pieces are those of a reply only
    where they are its text.
    """

    def __init__(self) -> None:
        self._pieces: dict[int, list[Piece]] = {}

    def keep(self, turns: Sequence[Message], pieces: Sequence[Piece]) -> None:
        """Keep the pieces of the last turn, or those with which it went on.

        Args:
            turns: the messages after the system message.
            pieces: what the stream of the last reply gave.
        """
        place = len(turns) - 1
        before = self._pieces.get(place, [])
        joined = [*before, *pieces]
        if turns and turns[-1].content == text_of(joined):
            self._pieces[place] = joined
        else:
            self._pieces[place] = list(pieces)

    def restore(self, pieces: Iterable[list[Piece]]) -> None:
        """Keep the pieces of all turns of another conversation, none where they are not known."""
        self._pieces = dict(enumerate(pieces))

    def of(self, turns: Sequence[Message]) -> list[list[Piece]]:
        """Return the pieces of each turn, none where its sources are not known.

        Args:
            turns: the messages after the system message.
        """
        found = [self._pieces.get(place, []) for place in range(len(turns))]
        return [
            pieces if text_of(pieces) == turn.content else []
            for turn, pieces in zip(turns, found, strict=True)
        ]
