"""Kinds of text, token by token: prose, code, numbers, lists, and what was said before."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

KINDS = ("prose", "code", "numbers", "lists", "repeated")
_FENCE = "```"
_ITEM = re.compile(r"\s*(?:[-*+\u2022]|\d+[.)])\s")
_INDENT = re.compile(r" *(?=[^ ])")
_MARK = re.compile(r" *(?:[-*+\u2022]|\d{1,9}[.)])(?: +|$)")
_NO_CODE = re.compile(r" *(?:[>|]|```|~~~)")
_UNDECIDED = re.compile(r" *(?:\d{1,9}|`{1,2}|~{1,2})$")  # a line that may yet be one of these
_CODE_INDENT = 4
_AGAIN = 3  # tokens in a row that were said in this order before


def kinds_of(texts: Sequence[str]) -> Iterator[str]:
    """Yield the kind of each token of a reply, one of `KINDS`.

    What repeats three tokens of the reply is "repeated", whatever it is; then what stands in a
    fence is "code", what has a digit "numbers", what stands in an item of a list "lists".

    Args:
        texts: the texts of the tokens, with their spaces and newlines.
    """
    seen: set[tuple[str, ...]] = set()
    line = Line()
    for index, text in enumerate(texts):
        line.add(text)
        window = tuple(texts[max(index - _AGAIN + 1, 0) : index + 1])
        if window in seen:
            yield "repeated"
        elif line.is_code:
            yield "code"
        elif any(letter.isdigit() for letter in text):
            yield "numbers"
        else:
            yield "lists" if _ITEM.match(line.text) else "prose"
        if len(window) == _AGAIN:
            seen.add(window)


class Line:
    """The line that a text has come to, which ends when another begins; no character is read twice.

    Attributes:
        text: its text so far.
    """

    def __init__(self) -> None:
        self.text = ""
        self._ended = False
        self._has_fence = False
        self._in_fence = False
        self._ticks = ""  # at the end, which more of them make a fence

    @property
    def is_code(self) -> bool:
        """Whether it stands in a fence, or has one."""
        return self._in_fence or self._has_fence

    def add(self, text: str) -> None:
        """Add what follows."""
        for number, part in enumerate(text.split("\n")):
            self._ended = self._ended or number > 0
            if part:
                self._add_part(part)

    def _add_part(self, part: str) -> None:
        """Add a text without newlines."""
        if self._ended:
            self.text = self._ticks = ""
            self._ended = self._has_fence = False
        self.text += part
        before, *others = (self._ticks + part).split(_FENCE)
        rest = others[-1] if others else before
        self._has_fence = self._has_fence or bool(others)
        self._in_fence ^= len(others) % 2 == 1
        self._ticks = rest[len(rest.rstrip("`")) :]


class IndentedCode:
    """Tells code by indentation alone from the text of items: lines behind an empty one that are
    indented by four spaces, or by four more than the item before them.
    """

    def __init__(self) -> None:
        self._line = ""  # as far as it has come
        self._item = 0  # column of the text of the last item, if that is not over
        self._may_begin = False  # whether the line before was empty, or code

    def add(self, text: str) -> bool:
        """Add what follows of a line, with its newline at last; return whether the line is code."""
        self._line += text
        line = self._line.rstrip("\n")
        is_code = self.holds(line) and (line < self._line or not _UNDECIDED.match(line))
        if line < self._line:
            self.end(line)
            self._line = ""
        return is_code

    def holds(self, line: str) -> bool:
        """Whether a line that follows is code."""
        indent = _INDENT.match(line)
        is_indented = indent is not None and len(indent[0]) >= self._item + _CODE_INDENT
        return self._may_begin and is_indented and not (_MARK.match(line) or _NO_CODE.match(line))

    def end(self, line: str) -> None:
        """Take a line that has ended."""
        self._may_begin = not line.strip() or self.holds(line)
        if self._may_begin:
            return
        mark = _MARK.match(line)
        if mark or not line.startswith(" "):
            self._item = mark.end() if mark else 0
