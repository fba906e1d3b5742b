"""What a line of Markdown is: the marks at its beginning, and what kind of block it begins.

A line is shown as a line: blank lines, indentation and line breaks stay as they were written, so a
list may be nested in any way, and a poem stays one.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..theme import Symbols
from .runs import DIM, PLAIN, Marked, Run

_MARK = re.compile(
    r"(?P<space> +)|(?P<quote>> ?)|(?P<bullet>[-*+])(?= |$)|(?P<number>\d{1,9}[.)])(?= |$)"
    r"|(?P<heading>#{1,6}(?: +|$))"
)
_TASK = re.compile(r" \[([ xX])\](?= )")
_FENCE = re.compile(r"(`{3,})([^`]*)$|(~{3,})(.*)$")
_RULE = re.compile(r"[ >]*([-*_])(?: *\1){2,} *$")
_UNDECIDED = re.compile(r"[-*+_#`~=|: ]*$|\d{1,9}[.)]?$|(?:```|~~~).*$")  # of a line's beginning
_CLOSING_MARKS = re.compile(r"(?:^| +)#+ *$")


class Line(NamedTuple):
    """A line, taken apart.

    Args:
        marks: what is shown of the marks at its beginning.
        content: what follows them.
        quotes: how many quotes it stands in.
        begins: whether it begins a block by its marks.
        is_heading: whether it is a heading.
    """

    marks: list[Run]
    content: Marked
    quotes: int
    begins: bool
    is_heading: bool


def take_apart(line: Marked, symbols: Symbols) -> Line:
    """Take a line, without its end, apart."""
    marks: list[Run] = []
    at, quotes, kinds = 0, 0, set()

    def show(text: str, end: int) -> int:
        sources = [*line.sources[at:end]]
        sources = [*sources, *sources[-1:] * len(text)][: len(text)]
        marks.append(Run(text, PLAIN, sources))
        return end

    while (match := _MARK.match(line.text, at)) and "heading" not in kinds:
        kind, end = str(match.lastgroup), match.end()
        kinds.add(kind)
        if kind == "quote":
            quotes += 1
            marks.append(Run(symbols.quote, DIM))
        elif kind == "bullet":
            show(symbols.bullet, end)
            if task := _TASK.match(line.text, end):
                at = end
                end = show(f" {symbols.boxes[task[1] != ' ']}", task.end())
        elif kind != "heading":
            show(match[0], end)
        at = end
    content = line.part(at)
    if "heading" in kinds:
        content = content.part(0, len(_CLOSING_MARKS.sub("", content.text)))
    begins = bool(kinds & {"bullet", "number", "heading"})
    return Line(marks, content, quotes, begins, "heading" in kinds)


def fence_of(line: Line) -> tuple[str, str] | None:
    """Return the fence that a line opens and the language behind it, or None."""
    match = _FENCE.match(line.content.text)
    return (match[1] or match[3], (match[2] or match[4] or "").strip()) if match else None


def closes(line: str, fence: str) -> bool:
    """Whether a line closes a block of code that a fence has opened."""
    return re.fullmatch(rf" *{fence[0]}{{{len(fence)},}} *", line) is not None


def is_rule(line: str) -> bool:
    """Whether a line is a horizontal rule."""
    return _RULE.match(line) is not None


def is_row(line: str) -> bool:
    """Whether a line is a row of a table: ours begin with a bar."""
    return line.lstrip(" ").startswith("|")


def is_undecided(line: Line) -> bool:
    """Whether a line that has not ended may turn out to be of another kind than it seems."""
    return not line.content.text or _UNDECIDED.match(line.content.text) is not None
