"""The messages of a conversation, and the forms in which people write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nfox.errors import UsageError


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Args:
        role: "system", "user" or "assistant".
        content: the text of the turn.
        ids: the token ids of a reply exactly as they were generated, without the one that stopped
            it; None where only the text is known.
    """

    role: str
    content: str
    ids: tuple[int, ...] | None = None


Messages = str | Message | Mapping[str, Any] | Sequence[Message | Mapping[str, Any]]
"""A question as text, one message, or a list of messages; a mapping has "role" and "content"."""


def as_messages(messages: Messages) -> list[Message]:
    """Return the messages of a conversation that is written in any of the forms.

    Args:
        messages: the conversation; a string is one message of the user.

    Raises:
        UsageError: if it has none of the forms, or no message, or a role or content is no string.
    """
    if isinstance(messages, str):
        return [Message("user", messages)]
    sequence: Any = [messages] if isinstance(messages, Message | Mapping) else messages
    if not isinstance(sequence, list | tuple):
        raise UsageError(f"messages must be {_FORMS}, not {type(sequence).__name__}")
    if not sequence:
        raise UsageError("there is no message to answer", f"messages are {_FORMS}")
    return [_as_message(message) for message in sequence]


_FORMS = 'a string, or a list of {"role": ..., "content": ...} or Message'


def _as_message(message: Any) -> Message:
    if isinstance(message, Mapping):
        if not {"role", "content"} <= message.keys():
            raise UsageError(
                f"a message has a role and a content, this one has {', '.join(message) or 'none'}",
                f"messages are {_FORMS}",
            )
        message = Message(message["role"], message["content"])
    if not isinstance(message, Message):
        kind = type(message).__name__
        raise UsageError(
            f'a message in a list must be {{"role": ..., "content": ...}} or a Message, not {kind}'
        )
    parts: dict[str, Any] = {"role": message.role, "content": message.content}
    for name, value in parts.items():  # which roles there are is the template's affair
        if not isinstance(value, str):
            kind = type(value).__name__
            raise UsageError(f"the {name} of a message must be a string, not {kind}")
    return message
