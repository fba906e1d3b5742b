"""What the context of a conversation is taken up by, in tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from nfox.errors import UsageError
from nfox.text.messages import Message

if TYPE_CHECKING:
    from nfox.conversation import Conversation

Item = TypeVar("Item")


@dataclass(frozen=True)
class ContextUse:
    """What takes up the context of a conversation.

    Args:
        system: the tokens of the system message.
        turns: the tokens of what was said in each turn, and its question.
        unread: how many of the oldest turns are no longer read.
        template: the tokens that the template puts around them.
        size: of the context, in tokens.
    """

    system: int
    turns: tuple[tuple[int, str], ...]
    unread: int
    template: int
    size: int

    @property
    def used(self) -> int:
        """How many tokens are taken."""
        return self.system + sum(count for count, _ in self.turns[self.unread :]) + self.template


def split_turns(
    items: Sequence[Item], message_of: Callable[[Item], Any] = lambda item: item
) -> list[list[Item]]:
    """Return messages turn by turn: a question and what follows it.

    Args:
        items: messages, or what has some.
        message_of: returns the message of an item.
    """
    turns: list[list[Item]] = []
    for item in items:
        if message_of(item).role == "user" or not turns:
            turns.append([])
        turns[-1].append(item)
    return turns


def measure(conversation: Conversation) -> ContextUse:
    """Return what takes up the context of a conversation.

    Raises:
        UsageError: for a model that reads the last question alone.
    """
    engine = conversation.engine
    if engine.model.target.is_encoder_decoder:
        raise UsageError("this model reads the last question alone, so nothing adds up")

    def count(message: Message) -> int:
        if message.ids is not None:
            return len(message.ids)
        options = {"add_special_tokens": False, "verbose": False}
        return len(engine.model.tokenizer(message.content, **options).input_ids)

    turns = split_turns(conversation.turns)
    unread = min(conversation.left_out, max(len(turns) - 1, 0))
    sizes = [sum(map(count, turn)) for turn in turns]
    opening = [message for message in conversation.messages if message.role == "system"]
    read = [*opening, *(message for turn in turns[unread:] for message in turn)]
    system = sum(map(count, opening))
    whole = len(engine.encode(read).ids) if turns else system
    return ContextUse(
        system,
        tuple((size, turn[0].content) for size, turn in zip(sizes, turns, strict=True)),
        unread,
        max(whole - system - sum(sizes[unread:]), 0),
        engine.max_context,
    )
