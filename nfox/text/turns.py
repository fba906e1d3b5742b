"""Which turns of a conversation are read, where not all of them find room.

The one idea: whoever leaves out one turn leaves out several. What the model remembers of a word
depends on every word before it, so without a turn all that follows is read anew. Half of what finds
room stays: until the other half is full again, every question is read behind what was read before
it, and while turns are short against the context, no word is read more than about twice.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from nfox.decoding.generate import Prompt
    from nfox.text.messages import Message

ContextPolicy = Literal["drop", "stop"]
"""What becomes of a conversation that outgrows the context: its oldest turns are no longer read, or
its next question is refused."""


_REPLY_SHARE = 5  # a fifth of the context suffices for the beginning of a reply


def longest_prompt(context: int, reply: int) -> int:
    """Return the most tokens of a prompt that leaves room for a reply, or the beginning of one.

    Args:
        context: the number of positions there are.
        reply: the most tokens of a reply.
    """
    return context - min(reply, context // _REPLY_SHARE)


def turns_in(messages: Sequence[Message]) -> int:
    """Return how many turns messages make up: a question and what follows it are one."""
    return sum(message.role == "user" for message in messages)


def fitting(
    turns: Sequence[Message],
    encode: Callable[[int], Prompt],
    unread: Sequence[Message] = (),
    limit: int | None = None,
) -> tuple[Prompt, int]:
    """Return the prompt of a conversation, and the index of the message with which it begins.

    That is where it began last, as long as it fits there. Else it begins with a later turn: the
    newest one is always read, of the others as many as take half of the room that it leaves, and
    the one before it wherever it fits.

    Args:
        turns: the conversation without its system message.
        encode: returns the prompt that begins with the message of an index, the system message
            before it included.
        unread: the messages that the last prompt left out.
        limit: the most tokens that the prompt may have; None for any number.
    """
    first = len(unread)
    if [*turns[:first]] != [*unread] or not turns_in(turns[first : first + 1]):
        first = 0  # it is another conversation by now
    prompt = encode(first)
    starts = [i for i, message in enumerate(turns) if i > first and message.role == "user"]
    if limit is None or len(prompt.ids) <= limit or not starts:
        return prompt, first

    def length(start: int) -> int:
        return len(encode(start).ids)

    *older, newest = starts
    least = length(newest)
    enough = least + max(0, limit - least) // 2
    at = bisect_left(older, True, key=lambda start: length(start) <= enough)
    if older and at == len(older) and length(older[-1]) <= limit:
        at -= 1  # what the newest question is most often about
    return encode(starts[at]), starts[at]
