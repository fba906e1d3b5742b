"""What a chat template has used of the time and memory that it may, and what its next step would.

The one idea: a value is weighed by what it is when it is written out; what makes a large one out of
small ones at once is weighed before it does.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from jinja2.utils import Namespace

from nfox.errors import ModelError

_SECONDS = 1.0  # of processor time; the largest conversations take a hundredth of it
_SECONDS_PER_CHARACTER = 5e-6  # of the messages, for templates that read them letter by letter
_MOST_LEVELS = 64  # of lists and dictionaries in each other that are written as JSON with indents
_STEPS_BETWEEN_LOOKS = 64  # at the clock

_Value = TypeVar("_Value")


class LimitExceeded(ModelError):
    """A template that takes too long, or makes too much."""


class Meter:
    """What one rendering has used of the time and the memory that it may.

    Args:
        size: the characters that go into the template: as many more may come out of a larger one.
    """

    def __init__(self, size: int) -> None:
        self.most = (1 << 19) + 16 * size
        self._left = (1 << 28) + 1024 * size  # of all values together
        self._seconds = min(_SECONDS + size * _SECONDS_PER_CHARACTER, 10 * _SECONDS)
        self._end = time.thread_time() + self._seconds
        self._steps = 0

    def step(self) -> None:
        """Count one step; raise LimitExceeded where the time is over."""
        self._steps += 1
        if self._steps % _STEPS_BETWEEN_LOOKS == 0 and time.thread_time() > self._end:
            raise LimitExceeded(f"it takes more than {self._seconds:.0f} s of processor time")

    def allow(self, size: int) -> None:
        """Raise LimitExceeded where a value of so many characters would be too large."""
        if size > self.most:
            raise LimitExceeded(f"it makes more than {self.most:,} characters of these messages")

    def keep(self, value: _Value) -> _Value:
        """Return a value that was made, once it is weighed."""
        self.step()
        weight = self.weigh(value)
        self.allow(weight)
        self._left -= weight
        self.allow(0 if self._left >= 0 else self.most + 1)
        return value

    def weigh(self, value: Any) -> int:
        """Return the characters that a value has when it is written out, at most one more than
        `most`. A value that holds another one twice is as heavy as two of them.
        """
        weight, values = 0, [value]
        while values and weight <= self.most:
            value = values.pop()
            if isinstance(value, str | bytes):
                weight += len(value)
            elif isinstance(value, int):
                weight += value.bit_length() // 3
            parts = _parts(value)
            values += parts
            weight += 4 if parts else 1
        return weight


def _parts(value: Any) -> list[Any]:
    """Return what a list, a dictionary or a namespace holds."""
    if isinstance(value, Namespace):
        value = object.__getattribute__(value, "_Namespace__attrs")
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    return [*value] if isinstance(value, list | tuple | set | frozenset) else []


_GROWS_BY_NUMBER = {
    *("center", "ljust", "rjust", "zfill", "to_bytes"),
    *("batch", "slice", "wordwrap", "truncate", "round"),
}
_GROWS_BY_TEXT = {"wordwrap", "urlize", "xmlattr", "translate", "batch"}


def made_size(name: str, values: Sequence[Any], named: Mapping[str, Any], meter: Meter) -> int:
    """Return a bound on the characters that a method or filter may make out of little at once.

    Args:
        name: the name of the method or filter.
        values: what it is applied to, and its arguments.
        named: its arguments by name.
        meter: weighs them.
    """
    value, *others = values or ("",)
    others += named.values()
    number = max((abs(n) for n in others if isinstance(n, int)), default=0)
    weight = max(map(meter.weigh, others), default=0)
    if name == "replace" and len(others) > 1:
        return str(value).count(str(others[0])) * len(str(others[1]))
    if name == "join" and others:
        separator, joined = (value, others[0]) if isinstance(value, str) else (others[0], value)
        return len(joined) * len(str(separator)) if isinstance(joined, list | tuple | str) else 0
    if name in ("indent", "expandtabs"):
        lines = str(value).count("\n" if name == "indent" else "\t") + 1
        return lines * max(number, weight)
    if name in ("tojson", "sum") and others:
        return _written_size(name, value, max(number, weight), meter)
    if name == "format":
        return formatted_size(str(value), "%", others, meter)
    grown = weight * meter.weigh(value) if name in _GROWS_BY_TEXT else 0
    return max(number if name in _GROWS_BY_NUMBER else 0, grown)


def _written_size(name: str, value: Any, extra: int, meter: Meter) -> int:
    """Return a bound on the steps in which values are summed, or the characters in which they are
    written as JSON, where each line and level has `extra` characters of its own.
    """
    if name == "sum":  # of lists, every one of which is copied with all before it
        return meter.weigh(value) * extra
    levels, depth = [value], 0
    while levels and depth < _MOST_LEVELS:
        levels, depth = [part for level in levels for part in _parts(level)], depth + 1
    return meter.weigh(value) * depth * extra if depth < _MOST_LEVELS else meter.most + 1


def product_size(left: Any, right: Any) -> int:
    """Return the characters of a text that is repeated, or of the product of two numbers."""
    if isinstance(left, int) and isinstance(right, int):
        return (left.bit_length() + right.bit_length()) // 3
    for times, value in ((left, right), (right, left)):
        if isinstance(times, int) and isinstance(value, str | bytes | list | tuple):
            return times * len(value)
    return 0


def formatted_size(text: str, mark: str, values: Iterable[Any], meter: Meter) -> int:
    """Return a bound on the characters of a text whose fields are filled in.

    Args:
        text: the text with its fields.
        mark: what begins a field, "%" or "{".
        values: what is filled in.
        meter: weighs it.
    """
    fields = _FIELDS[mark].findall(text.replace(mark * 2, ""))
    if any("*" in field or "{" in field for field in fields):
        return meter.most + 1  # a width that is filled in itself
    widths = sum(int(digits) for field in fields for digits in re.findall(r"\d+", field))
    return len(text) + len(fields) * max(map(meter.weigh, values), default=0) + widths


_FIELDS = {"%": re.compile(r"%[^a-zA-Z]*"), "{": re.compile(r"\{[^{}:]*:?([^}]*)")}
