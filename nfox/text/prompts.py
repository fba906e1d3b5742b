"""The prompts of a file of JSON lines: what each line asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nfox.characters import whole_characters
from nfox.text.messages import Message, parse_message

LAYOUTS = '{"id", "prompt"}, {"id", "messages": [{"role", "content"}]} or {"id", "turns": [text]}'
_NAMES = ("id", "question_id")
_KEYS: dict[str, Any] = {"prompt": str, "turns": list, "messages": list}
_UNSUPPORTED = ("tools", "functions")


def prompt_name(row: Mapping[str, Any], index: int) -> str:
    """Return the id of a prompt.

    Args:
        row: the JSON object of its line.
        index: the index of the line, which is the id where it has none.

    Raises:
        ValueError: if the id is neither a text nor a number.
    """
    for key in _NAMES:
        if (name := row.get(key)) is not None and name == name:  # a table's NaN is none
            if isinstance(name, bool) or not isinstance(name, str | int | float):
                raise ValueError(f"{key} must be a text or a number, not {name!r:.40}")
            return whole_characters(str(name))
    return str(index)


def prompt_messages(row: Mapping[str, Any]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """Return the messages before the first question of a prompt, and its questions.

    Args:
        row: the JSON object of its line.

    Raises:
        ValueError: if it has none of the layouts, or says what would not be asked.
    """
    keys = [key for key, kind in _KEYS.items() if isinstance(row.get(key), kind)]
    if len(keys) != 1:
        raise ValueError(f"it has both {' and '.join(keys)}" if keys else "none of the layouts")
    if unsupported := [key for key in _UNSUPPORTED if row.get(key)]:
        raise ValueError(f"not supported here: {', '.join(unsupported)}")
    value = row[keys[0]]
    items = [value] if keys[0] == "prompt" else value
    if not isinstance(items, list) or not items:
        raise ValueError("none of the layouts")
    system = row.get("system")
    if not isinstance(system, str | None):
        raise ValueError(f"system must be a text, not {system!r:.40}")
    opening = (Message("system", system),) if system else ()
    if keys[0] != "messages":
        if not all(isinstance(item, str) for item in items):
            raise ValueError("none of the layouts")
        return opening, tuple(items)
    messages = [_message(number, item) for number, item in enumerate(items, 1)]
    if messages[-1].role != "user":
        raise ValueError(f"the last message must be the user's, not {messages[-1].role}'s")
    if opening and messages[0].role == "system":
        raise ValueError("it has system both beside and in its messages")
    return (*opening, *messages[:-1]), (messages[-1].content,)


def _message(number: int, item: Any) -> Message:
    try:
        return parse_message(item)
    except ValueError as error:
        raise ValueError(f"message {number}: {error}") from error
