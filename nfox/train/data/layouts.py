"""Records of conversations as people publish them: ShareGPT's, OpenAI's, LMSYS's, with fields of
their own beside the turns.

What is not read has a name, by which it is counted: nothing that a record says is lost in silence.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nfox.controls import one_line
from nfox.text.messages import ROLES, Message, content_text

LAYOUTS = (
    '{"conversations": [{"from": "human", "value": "..."}]}, '
    '{"messages": [{"role": "user", "content": "..."}]} (or "conversation"), '
    'or [{"role": "user", "content": "..."}]'
)
_LISTS = ("conversations", "messages", "conversation", "turns")
_SYSTEM = ("system", "system_prompt", "system_message")
_THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
_BESIDE = (
    *("prompt", "completion", "response", "instruction", "input", "output", "question", "answer"),
    *("query", "history", "text", "chosen", "rejected", "conversation_a", "conversation_b"),
    *("context", "documents", "choices", "options", "chat_template_kwargs", *_THOUGHTS),
    *("tools", "functions", "image", "images", "video", "videos", "audio", "audios"),
)
"""Fields that say something which the turns may not say."""

_CALLS = ("tool_calls", "function_call")
_FLAGS = ("loss", "loss_mask", "train", "training")
"""Fields by which a turn says whether it is learned, besides its weight: false or 0 where not."""

_DETAILS = ("train_detail", "training_detail")
"""Fields that say which stretches of a turn are learned."""

_SPEAKERS = {"USER": "user", "SYSTEM": "assistant"}
_ROLES = {**ROLES, "human": "user"} | dict.fromkeys(("gpt", "chatgpt", "bing", "bard"), "assistant")


class _Malformed(Exception):
    """A turn that is no message; the text is the name by which it is counted."""


@dataclass(frozen=True)
class Record:
    """What a record of a dataset says.

    Args:
        turns: its turns in order, None for one that is malformed.
        unread: the names of what it says and the turns do not.
    """

    turns: list[Message | None]
    unread: tuple[str, ...] = ()


def parse_record(record: Any) -> Record:
    """Return the turns of a record in any layout, none for a record in another one.

    Args:
        record: what one record of a dataset holds; None for a line that could not be read.
    """
    if isinstance(record, Mapping):
        return _parse_mapping(record)
    if record is None:
        return Record([], ("lines that are not JSON in UTF-8",))
    return _parse_turns(record) if isinstance(record, list) else Record([])


def has_turns(record: Mapping[str, Any]) -> bool:
    """Return whether an object has turns, in whatever field."""
    return any(_items(record.get(key)) for key in _LISTS)


def _parse_mapping(record: Mapping[str, Any]) -> Record:
    """Return what an object says: its turns, and what stands beside them."""
    lists = {key: items for key in _LISTS if (items := _items(record.get(key)))}
    beside = [key for key in _BESIDE if _says(record.get(key))]
    if not lists:
        found = [*(key for key in _LISTS if _says(record.get(key))), *beside]
        return Record([], (f"records with {', '.join(found)}",) if found else ())
    parsed = [_parse_turns(items) for items in lists.values()]
    first = parsed[0]
    if any(other.turns != first.turns for other in parsed[1:]):
        return Record([], (f"records with {' and '.join(lists)} that differ",))
    turns, lost = _with_system(record, first.turns)
    lost += [key for key in beside if not _repeats(record[key], turns)]
    return Record(turns, (*first.unread, *lost))


def _items(value: Any) -> list[Any]:
    """Return the turns of a field; `datasets` gives some as an object of lists."""
    if isinstance(value, Mapping) and value and all(isinstance(v, list) for v in value.values()):
        columns = [[(key, cell) for cell in cells] for key, cells in value.items()]
        return list(map(dict, zip(*columns, strict=False)))
    return value if isinstance(value, list) else []


def _says(value: Any) -> bool:
    """Return whether the value of a field says anything."""
    return value not in (None, False, "", "[]", "{}", "null") and value not in ([], {})


def _repeats(value: Any, turns: Sequence[Message | None]) -> bool:
    """Return whether a field says no more than one of the turns, or all of them."""
    if isinstance(value, str):
        return any(turn and turn.content.strip() == value.strip() for turn in turns)
    if not isinstance(value, list):
        return False
    return all(turn is not None and turn in turns for turn in _parse_turns(value).turns)


def _with_system(
    record: Mapping[str, Any], turns: list[Message | None]
) -> tuple[list[Message | None], list[str]]:
    """Return the turns with the system message that stands beside them, and the names of those
    that do not fit.
    """
    lost: list[str] = []
    for key in _SYSTEM:
        text = record.get(key)
        if not _says(text):
            continue
        first = turns[0] if turns else None
        system = first.content if first and first.role == "system" else None
        if system is None and isinstance(text, str):
            turns = [Message("system", text), *turns]
        elif not isinstance(text, str) or text.strip() != str(system).strip():
            lost.append(f"{key} beside another one" if isinstance(text, str) else key)
    return turns, lost


def _parse_turns(items: Sequence[Any]) -> Record:
    """Return what a list of turns says."""
    turns: list[Message | None] = []
    unread: dict[str, None] = {}
    for item in itertools.chain.from_iterable(map(_split, items)):
        try:
            turns.append(_parse_turn(item))
            unread.update(dict.fromkeys(_unread(item)))
        except _Malformed as error:
            turns.append(None)
            unread[str(error)] = None
    return Record(turns, tuple(unread))


def _split(item: Any) -> list[Any]:
    """Return the turns of an item: Capybara and XTuner write a question and its reply in one."""
    if not isinstance(item, Mapping) or item.keys() & {"from", "role"}:
        return [item]
    if not {"input", "output"} <= item.keys():
        return [item]
    texts = {"system": item.get("system"), "user": item["input"], "assistant": item["output"]}
    said = [(role, text) for role, text in texts.items() if role != "system" or _says(text)]
    return [{**item, "role": role, "content": text} for role, text in said]


def _parse_turn(item: Any) -> Message:
    """Return the message of a turn.

    Raises:
        _Malformed: if it is none.
    """
    if not isinstance(item, Mapping):
        raise _Malformed("turns that are no objects")
    if "utterance" in item:  # the Schema-Guided Dialogue dataset
        item = {"role": _SPEAKERS.get(str(item.get("speaker"))), "content": item["utterance"]}
    name = _one_of(item, "from", "role")
    role = _ROLES.get(name.strip().lower()) if isinstance(name, str) else None
    if name is None:
        raise _Malformed(f"turns with {', '.join(map(_short, item))}, without a role")
    if role is None:
        raise _Malformed(f"role {_short(name)}")
    if call := next((field for field in _CALLS if _says(item.get(field))), None):
        raise _Malformed(call)
    learned = role != "assistant" or _is_learned(item)
    return Message(role, _text(_one_of(item, "value", "content")), None, learned)


def _one_of(item: Mapping[str, Any], first: str, second: str) -> Any:
    """Return the field of either name. Datasets of several layouts have both, one of them null."""
    values = [item[key] for key in (first, second) if item.get(key) is not None]
    if len(values) == 2 and values[0] != values[1]:
        raise _Malformed(f"{first} and {second} that differ")
    return values[0] if values else None


def _short(value: Any) -> str:
    """Return the beginning of a value, in one line that can be shown."""
    return one_line(str(value)[:30])


def _text(content: Any) -> str:
    """Return the text of a turn's content."""
    try:
        return content_text(content)
    except ValueError:
        parts = content if isinstance(content, list) else ()
        kinds = [part.get("type") for part in parts if isinstance(part, Mapping)]
        kind = next((kind for kind in kinds if kind != "text"), None)
        found = f"of type {_short(kind)}" if kind else "that is no text"
        raise _Malformed("content null" if content is None else f"content {found}") from None


def _is_learned(item: Mapping[str, Any]) -> bool:
    """Return whether a model is trained on a reply: one of weight 0 is only read."""
    return _weight(item) != 0 and all(item.get(flag) != 0 for flag in _FLAGS)


def _weight(item: Mapping[str, Any]) -> Any:
    """Return the weight of a turn, 1 where it has none."""
    weight = item.get("weight")
    return 1 if weight is None or weight != weight else weight  # a table's NaN is none


def _unread(item: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of what a turn says besides its message."""
    yield from (name for name in (*_THOUGHTS, *_DETAILS) if _says(item.get(name)))
    if (weight := _weight(item)) not in (0, 1):
        yield f"weight {_short(weight)}"
