"""Conversations in files: the messages of our own, of a bare list, and of FastChat's layout.

A file is not believed: what it holds is checked, and the token ids of a reply are kept only where
they spell its text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, NonNegativeInt, StringConstraints

from nfox.errors import NfoxError
from nfox.files.reading import json_type, read_json, refusing
from nfox.text.messages import Message, parse_message

FORMAT = "nfox.conversation/1"
_LAYOUTS = '{"messages": [{"role", "content"}]}, a list of these, or FastChat\'s layout'
_Text = Annotated[str, StringConstraints(strict=True)]


class _Reply(BaseModel, strict=True):
    """What a message of a saved conversation has besides its role and its content."""

    ids: list[NonNegativeInt] | None = None


class _Saved(BaseModel, strict=True):
    """A saved conversation."""

    messages: list[dict[str, Any]]
    format: Literal["nfox.conversation/1"] | None = None
    model: str | None = None


class _FastChat(BaseModel):
    """A conversation as FastChat writes it: [[role, text], ...], the first of them examples."""

    roles: tuple[_Text, _Text]
    messages: list[tuple[_Text, _Text | None]]
    offset: Annotated[int, Field(strict=True, ge=0)] = 0
    system_message: _Text | None = None
    system: _Text | None = None  # its former name


def to_json(model: str, template: str, messages: Sequence[Message]) -> dict[str, Any]:
    """Return the JSON object of a saved conversation.

    Args:
        model: the name of the model.
        template: the name of the conversation template.
        messages: the messages, with the token ids of replies where they are known.
    """
    rows = [
        {"role": message.role, "content": message.content}
        | ({} if message.ids is None else {"ids": list(message.ids)})
        for message in messages
    ]
    return {"format": FORMAT, "model": model, "template": template, "messages": rows}


def read_messages(
    path: Path, model: str, spells: Callable[[Sequence[int], str], bool]
) -> list[Message]:
    """Return the messages of a conversation in a file.

    Args:
        path: the file: a saved conversation, a list of messages with "role" and "content", or a
            conversation of FastChat.
        model: the name of the model, with which the token ids of replies must have been made.
        spells: returns whether token ids are those of a reply with this text. Ids that are not are
            left out, and the text will be tokenised.

    Raises:
        NfoxError: if the file has none of these layouts.
    """
    where = f"{path}: not a conversation"
    with refusing(where, _LAYOUTS, NfoxError):
        data = read_json(path, error_type=NfoxError, non_finite=True)
        if isinstance(data, dict) and "roles" in data:
            return _fastchat_messages(_FastChat.model_validate(data))
        if not isinstance(data, dict | list):
            raise TypeError(f"it is {json_type(data)}")
        saved = _Saved.model_validate(data if isinstance(data, dict) else {"messages": data})
    messages = []
    for number, row in enumerate(saved.messages, 1):
        with refusing(f"{where}: message {number}", _LAYOUTS, NfoxError):
            messages.append(_message(row))
    return [
        message
        if message.ids and saved.model == model and spells(message.ids, message.content)
        else replace(message, ids=None)
        for message in messages
    ]


def _message(row: dict[str, Any]) -> Message:
    """Return a message, with the token ids that the file gives of a reply; an error is any."""
    message = parse_message(row)
    ids = _Reply.model_validate(row).ids if message.role == "assistant" else None
    return replace(message, ids=None if ids is None else tuple(ids))


def _fastchat_messages(data: _FastChat) -> list[Message]:
    """Return the messages of a conversation of FastChat, without those that are examples.

    Raises:
        ValueError: if a message is of neither role, or there are fewer than the examples.
    """
    if data.offset > len(data.messages):
        raise ValueError(f"offset {data.offset} of {len(data.messages)} messages")
    system = data.system_message or data.system
    messages = [Message("system", system)] if system else []
    for number, (role, text) in enumerate(data.messages):
        if role not in data.roles:
            raise ValueError(f"messages.{number}: the role {role!r} is none of {data.roles}")
        of_user = number % 2 == 0 if data.roles[0] == data.roles[1] else role == data.roles[0]
        if text is not None and number >= data.offset:  # the last reply may be still to come
            messages.append(Message("user" if of_user else "assistant", text))
    return messages
