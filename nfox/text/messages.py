"""The messages of a conversation, and the forms in which people write them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nfox.characters import whole_characters
from nfox.errors import UsageError

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""The roles of OpenAI's messages, each with the one that templates render it as."""

_CALLS = ("tool_calls", "function_call")
"""The fields of OpenAI's messages that say something beside the content; they are not supported."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Args:
        role: "system", "user" or "assistant"; "tool" for what a called tool answered.
        content: the text of the turn. What is no character in it becomes U+FFFD.
        ids: the token ids of a reply exactly as they were generated, without the one that stopped
            it; None where only the text is known.
        supervised: whether a model is trained to say it, where it is a reply; otherwise it is only
            read.
        tool_fields: what else templates read of a reply that calls tools, or of a tool's answer, as
            a JSON object: "tool_calls", "tool_call_id", "name".
    """

    role: str
    content: str
    ids: tuple[int, ...] | None = None
    supervised: bool = True
    tool_fields: str = ""

    def __post_init__(self) -> None:
        for name in ("role", "content"):
            if isinstance(text := getattr(self, name), str):  # whoever reads it checks the type
                object.__setattr__(self, name, whole_characters(text))

    @property
    def turn(self) -> dict[str, Any]:
        """The message as templates read it."""
        return {"role": self.role, "content": self.content, **json.loads(self.tool_fields or "{}")}


Messages = str | Message | Mapping[str, Any] | Sequence[Message | Mapping[str, Any]]
"""A question as text, one message, or a list of messages; a mapping has "role" and "content",
a text or a list of parts of type text."""


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
        content = message["content"]
        try:
            refuse_calls(message)
            content = content_text(content) if isinstance(content, list) else content
        except ValueError as error:
            raise UsageError(f"the content of a message: {error}") from error
        message = Message(message["role"], content)
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


def parse_message(item: Any) -> Message:
    """Return the message of a JSON object as OpenAI's API has it, a developer's as the system's.

    Args:
        item: the object: a role, and a content that is a text or a list of parts of type text.

    Raises:
        ValueError: if it is no message, or says what cannot be passed on, such as an image.
    """
    if not isinstance(item, Mapping):
        raise ValueError('expected {"role", "content"}')
    role = item.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(f"role: expected {', '.join(ROLES)}, not {role!r:.40}")
    refuse_calls(item)
    content = item.get("content")
    if content is None and role == "assistant":
        content = ""  # an empty reply, as clients send it back
    return Message(ROLES[role], content_text(content))


def refuse_calls(item: Mapping[str, Any]) -> None:
    """Raise ValueError for a message that calls a tool: a template would not be told of it."""
    if call := next((name for name in _CALLS if item.get(name)), None):
        raise ValueError(f"not supported here: {call}")


def content_text(content: Any) -> str:
    """Return the text of a message's content in JSON.

    Args:
        content: a text, or a list of parts of type text, which are joined by newlines.

    Raises:
        ValueError: if it is something else.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ValueError("expected a text, or a list of parts that are text")
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else part
        if kind != "text":
            raise ValueError(f"not supported here: {kind!r:.40}; only parts of type text are")
        if not isinstance(part.get("text"), str):
            raise ValueError("a part of type text has no text")
    return "\n".join(part["text"] for part in content)


def questions_digest(conversations: Sequence[Sequence[Message]]) -> str:
    """Return a digest that tells the questions of one dataset from those of another."""
    digest = hashlib.sha256()
    for messages in conversations:
        turns = [(m.role, m.content) for m in messages if m.role != "assistant"]
        digest.update(json.dumps(turns).encode())
    return digest.hexdigest()
