"""Conversations in files: the messages of our own, of a bare list, and of FastChat's layout.

A file is not believed: what it holds is checked, and the token ids of a reply are kept only where
they spell its text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, NonNegativeInt, StringConstraints

from nfox.controls import json_text
from nfox.errors import NfoxError
from nfox.files.reading import describe, json_type, read_json, refusing
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


def write_saved(path: Path, data: dict[str, Any], *, private: bool = False) -> None:
    """Write the JSON object of a saved conversation to a file.

    Args:
        path: of the file.
        data: the object, as `to_json` gives it.
        private: whether only its owner may read the file.

    Raises:
        NfoxError: if the file cannot be written.
    """
    from nfox.files.atomic import write_text  # which takes torch

    try:
        write_text(path, json_text(data, indent=1), private=private)
    except (OSError, ValueError) as error:
        raise NfoxError(f"cannot write {path}: {describe(error)}") from error


@dataclass(frozen=True)
class SavedConversation:
    """A conversation that was read.

    Args:
        messages: its messages.
        model: the name of the model that it was with; None where that is not said.
    """

    messages: list[Message]
    model: str | None = None


def read_saved(path: Path) -> Any:
    """Return the JSON value of a file with a conversation.

    Raises:
        NfoxError: if the file cannot be read, or is no JSON.
    """
    with refusing(_wrong(path), _LAYOUTS, NfoxError):
        return read_json(path, error_type=NfoxError, non_finite=True)


def parse_conversation(
    data: Any, where: str | Path, model: str, spells: Callable[[Sequence[int], str], bool]
) -> SavedConversation:
    """Return the conversation of a JSON value.

    Args:
        data: a saved conversation, a list of messages with "role" and "content", or a conversation
            of FastChat.
        where: it stands, for errors.
        model: the name of the model, with which the token ids of replies must have been made.
        spells: returns whether token ids are those of a reply with this text. Ids that are not are
            left out, and the text will be tokenised.

    Raises:
        NfoxError: if the value has none of these layouts.
    """
    with refusing(_wrong(where), _LAYOUTS, NfoxError):
        if isinstance(data, dict) and "roles" in data:
            return SavedConversation(_fastchat_messages(_FastChat.model_validate(data)))
        if not isinstance(data, dict | list):
            raise TypeError(f"it is {json_type(data)}")
        saved = _Saved.model_validate(data if isinstance(data, dict) else {"messages": data})
    messages = []
    for number, row in enumerate(saved.messages, 1):
        with refusing(f"{_wrong(where)}: message {number}", _LAYOUTS, NfoxError):
            messages.append(_message(row))
    checked = [
        message
        if message.ids and saved.model == model and spells(message.ids, message.content)
        else replace(message, ids=None)
        for message in messages
    ]
    return SavedConversation(checked, saved.model)


def _wrong(where: str | Path) -> str:
    return f"{where}: not a conversation"


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
