"""The replies of a chat, and how each was made. What "the last reply" is, is decided here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nfox.errors import UsageError
from nfox.text.pieces import Piece, text_of

if TYPE_CHECKING:
    from nfox.conversation import Conversation
    from nfox.reply import Exchange
    from nfox.text.messages import Message

    from ..display.steps import StepRecord

_MADE = 50  # newest replies whose steps are kept: thousands of drafted tokens each


@dataclass(frozen=True)
class Part:
    """What was decoded at one go: a reply, or what /continue added to one.

    Args:
        exchange: the reply, and what it was asked by.
        pieces: its text, with the sources of its tokens.
        records: its steps.
    """

    exchange: Exchange
    pieces: list[Piece]
    records: list[StepRecord]


@dataclass(frozen=True)
class KnownReply:
    """A reply of the conversation.

    Args:
        message: the reply, as it stands in the conversation.
        pieces: its text, with the sources of its tokens; none where they are not known.
        parts: of which it was made, in turn; none where that is not known.
    """

    message: Message
    pieces: list[Piece]
    parts: tuple[Part, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether the parts that are known are all of the reply."""
        replies = [part.exchange.reply for part in self.parts]
        if self.message.ids is None:  # a stop string cut it inside of a token
            return bool(replies) and "".join(map(str, replies)) == self.message.content
        return tuple(token for reply in replies for token in reply.ids) == self.message.ids


class Replies:
    """How every reply was made, by its place among the messages after the system message.

    Turns are taken back, answered again and replaced by others; pieces are those of a reply only
    where they are its text, and parts only where it is the very message that they made.
    """

    def __init__(self) -> None:
        self._known: dict[int, KnownReply] = {}

    def keep(self, conversation: Conversation, part: Part) -> None:
        """Keep how the last reply was made, or how it went on; nothing where nothing was said.

        Args:
            conversation: it, with the reply.
            part: what was decoded last.
        """
        turns, asked = conversation.turns, conversation.asked[-1]
        if not part.records or not turns or turns[-1].role != "assistant":
            return
        known = KnownReply(turns[-1], part.pieces, (part,))
        before = self._known.get(len(turns) - 1)
        if asked.role == "assistant" and before is not None:  # it went on
            pieces = [*before.pieces, *part.pieces]
            known = KnownReply(turns[-1], pieces, (*before.parts, part))
        self.put(turns, known)

    def put(self, turns: Sequence[Message], known: KnownReply) -> None:
        """Let a reply be the one that the last turn is."""
        place = len(turns) - 1
        self._known[place] = known
        former = self._known.get(place - 2 * _MADE)
        if former is not None:
            self._known[place - 2 * _MADE] = replace(former, parts=())

    def restore(self, turns: Sequence[Message], pieces: Iterable[list[Piece]]) -> None:
        """Keep the pieces of all turns of another conversation, none where they are not known."""
        self._known = {
            place: KnownReply(message, known)
            for place, (message, known) in enumerate(zip(turns, pieces, strict=True))
        }

    def pieces(self, turns: Sequence[Message]) -> list[list[Piece]]:
        """Return the pieces of each turn, none where its sources are not known.

        Args:
            turns: the messages after the system message.
        """
        found = [self._known.get(place) for place in range(len(turns))]
        return [
            known.pieces if known and text_of(known.pieces) == turn.content else []
            for turn, known in zip(turns, found, strict=True)
        ]

    def last(self, conversation: Conversation) -> KnownReply:
        """Return the last reply that is still in the conversation.

        Raises:
            UsageError: if there is none.
        """
        turns = conversation.turns
        if not turns or turns[-1].role != "assistant":
            raise UsageError("there is no reply yet")
        known = self._known.get(len(turns) - 1)
        if known is not None and known.message is turns[-1]:
            return replace(known, pieces=self.pieces(turns)[-1])
        return KnownReply(turns[-1], self.pieces(turns)[-1])

    def last_part(self, conversation: Conversation) -> Part:
        """Return how the last reply was made; of one that went on, how it went on.

        Raises:
            UsageError: if there is none, or it was made elsewhere.
        """
        known = self.last(conversation)
        if not known.parts:
            raise UsageError(
                "how the last reply was decoded is not known: it was loaded, or is another model's",
                "/regen answers the question again",
            )
        return known.parts[-1]
