"""Characters that command: what steers a terminal, breaks a line, or is no text in a file.

Names of files and folders, messages of libraries, requests and replies may hold any of them, so
whatever goes out passes one of these functions.
"""

from __future__ import annotations

import json
import re
from typing import Any

_BIDI = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}  # overrides and isolates
_BREAKS = {0x2028, 0x2029}  # which end a line for some programs, and for others not
_SURROGATES = range(0xD800, 0xE000)  # halves of characters, which no encoding has
_STEERING = {*range(0x20), *range(0x7F, 0xA0), *_BIDI} - {ord("\n"), ord("\t")}
_CLEANED = {
    **dict.fromkeys((*_STEERING, 0xFFFE, 0xFFFF)),  # the last two are no characters, in XML neither
    **dict.fromkeys(_SURROGATES, "\ufffd"),
}
_ESCAPED = {
    code: f"\\u{code:04x}"
    for code in (*range(0x7F, 0xA0), *_BIDI, *_BREAKS, *_SURROGATES, 0xFFFE, 0xFFFF)
}
_LINE_BREAK = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")


def sanitize(text: str) -> str:
    r"""Return a text without the characters that would steer a terminal.

    These are all control characters but \n and \t (ESC is one), which move the cursor or send the
    terminal commands, and bidi overrides and isolates, which reorder the text around them. The
    marks that Arabic and Hebrew need stay. What is left can stand in XML and HTML, too.
    """
    return text.translate(_CLEANED)


def one_line(text: str) -> str:
    """Return a text as `sanitize` does, with spaces for its line breaks and tabs.

    What comes from outside cannot pass for a line of ours then, in a log or below an error.
    """
    return sanitize(_LINE_BREAK.sub(" ", text).replace("\t", " "))


def json_text(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON in readable characters, but for those that would steer a terminal,
    break the line, or could not be written to a file: they are escaped.

    Args:
        value: of dicts, lists, texts and numbers.
        indent: how many more spaces the contents of an object are indented by, each on a line of
            its own; a list without objects stays on one line. None puts everything on one line.
    """
    text = json.dumps(value, ensure_ascii=False) if indent is None else _spread(value, indent, 0)
    return text.translate(_ESCAPED)


def _spread(value: Any, indent: int, depth: int) -> str:
    """Return a value as JSON over several lines, at a depth."""
    if not value or not _holds_object(value):
        return json.dumps(value, ensure_ascii=False)
    inner = [_spread(one, indent, depth + 1) for one in _inside(value)]
    if is_object := isinstance(value, dict):
        inner = [
            f"{json.dumps(str(key), ensure_ascii=False)}: {one}"
            for key, one in zip(value, inner, strict=True)
        ]
    begin, end = "{}" if is_object else "[]"
    margin = "\n" + " " * (indent * depth)
    lines = f",{margin}{' ' * indent}".join(inner)
    return f"{begin}{margin}{' ' * indent}{lines}{margin}{end}"


def _inside(value: Any) -> list[Any]:
    return list(value.values() if isinstance(value, dict) else value)


def _holds_object(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_holds_object, value))
    return isinstance(value, dict)
