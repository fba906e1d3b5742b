"""Where the rows of a text end that is still growing: between words, and in code nowhere.

A break that was made stays: what follows decides about the last word alone. The rows of an item or
of a quote begin below its text. A word that fits in no row is broken there too, at the edge; in a
paragraph the terminal breaks it, so that a link can be copied.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

_JOINER = "\u200d"
_WORD = re.compile(r" *[^ ]+| +")
_LEAD = re.compile(  # bars of quotes, then the mark of an item, of which a task has a box behind it
    r"(?P<quotes>(?: *[▌>] )*)(?P<mark> *(?:(?:[•*+-]|\d{1,3}[.)]) +(?:(?:[☐☑]|\[[ x]\]) +)?)?)"
)
_HYPHEN = re.compile(  # behind which a word may be broken
    r"(?:(?<=[^\W\d][^\W\d]-)|(?<=[^\W\d]-[^\W\d]-))(?=[^\W\d]-?[^\W\d])"
)
_ROOM = 3  # of a row that is left free: a third, and a word that fits in no row begins there
_LONGEST_LEAD = 40  # characters
_OURS = Style(dim=True)
_CLOSING = {"Pe", "Pf", "Po", "Lm", "Sk"}  # categories of characters that begin no row
_OPENING = {"Ps", "Pi"}  # and of those that end none

VERBATIM = Style(meta={"verbatim": True})
"""Lies over lines that the terminal alone breaks, at its edge."""


class Place(NamedTuple):
    """Where a text goes on.

    Args:
        row: what stands before it since the last line break, be it of the text or of ours.
        lead: what its line begins with.
    """

    row: str
    lead: str


class _Break(NamedTuple):
    """A place at which a text stands instead of spaces, if there are any.

    Args:
        start: where these begin.
        end: where they end.
        text: what stands there.
    """

    start: int
    end: int
    text: str


def lead_of(text: str) -> str:
    """Return what the last line of a text begins with, as long as it can matter."""
    return text.rpartition("\n")[2][:_LONGEST_LEAD]


def wrapped(text: Text, place: Place, width: int) -> Text:
    """Return a text with line breaks between its words, so that none goes on in the next row that
    fits in one.

    Args:
        text: the text; lines under `VERBATIM` stay as they are.
        place: where it goes on.
        width: the cells of a row.
    """
    parts, at, start = [], 0, 0
    for line in text.plain.split("\n"):
        end = start + len(line)
        for found in [] if _is_verbatim(text, start, end) else _breaks(line, place, width):
            parts += [text[at : start + found.start], Text(found.text, _OURS)]
            at = start + found.end
        start = end + 1
        place = Place("", "")
    return Text().join([*parts, text[at:]]) if parts else text


def unfinished(text: Text, place: Place, width: int) -> int:
    """Return how many characters at the end of a text may yet go into the next row: its last word
    and the spaces before it.

    Args:
        text: the text.
        place: where it goes on.
        width: the cells of a row.
    """
    line = text.plain.rpartition("\n")[2]
    if not line or _is_verbatim(text, len(text) - len(line), len(text)):
        return 0
    place = Place("", "") if len(line) < len(text) else place
    *others, (start, word, end) = _words(line)
    can_move = others or start < word or _may_part(place.row[-1:], line[0])
    fits = _cells(line[word:end]) <= width - len(_hanging(place.lead + line, width))
    return end - start if can_move and fits else 0


def column_behind(line: str, width: int) -> int:
    """Return the column in which the cursor stands behind a line that the terminal breaks; behind
    the last column, where terminals disagree, it is the width.
    """
    if line.isascii():
        return (len(line) - 1) % width + 1 if line else 0
    column = 0
    for character in line:
        cells = cell_len(character)
        column = cells if column + cells > width else column + cells
    return column


def _is_verbatim(text: Text, start: int, end: int) -> bool:
    """Whether any of a line is: what came first may have been too little to tell."""
    return any(s.style is VERBATIM and s.start < end and start < s.end for s in text.spans)


def _breaks(line: str, place: Place, width: int) -> Iterator[_Break]:
    """Yield the breaks of a line, or of its end."""
    hanging = _hanging(place.lead + line, width)
    edge = f"\n{hanging}"
    column = column_behind(place.row, width)
    for start, word, end in _words(line):
        if column + _cells(line[start:end]) <= width:
            column += _cells(line[start:end])
            continue
        if word == end:  # spaces behind a full row would begin the next
            yield _Break(start, end, "")
            continue
        can_move = column > len(hanging) and (word > 0 or _may_part(place.row[-1:], line[0]))
        is_long = _cells(line[word:end]) > width - len(hanging)
        room = width - column - (word - start)
        if can_move and not is_long and (begun := _hyphenated(line[word:end], room)):
            start = word = word + begun
        if can_move and not (is_long and hanging and room * _ROOM >= width):
            yield _Break(start, word, edge)
            start, column = word, len(hanging)
        if not hanging:
            column = column_behind(" " * column + line[start:end], width)
            continue
        for at in range(start, end):
            if column + cell_len(line[at]) > width:
                yield _Break(at, at, edge)
                column = len(hanging)
            column += cell_len(line[at])


def _hyphenated(word: str, room: int) -> int:
    """Return how many characters of a word, up to a hyphen, fit into what is left of a row; those
    of a path or a link stay together.
    """
    ends = [] if "/" in word else [found.start() for found in _HYPHEN.finditer(word)]
    return max((end for end in ends if _cells(word[:end]) <= room), default=0)


def _words(line: str) -> Iterator[tuple[int, int, int]]:
    """Yield the start of the spaces before each word, the start and the end of the word."""
    for match in _WORD.finditer(line):
        start, end = match.span()
        word = end - len(match[0].lstrip(" "))
        if not match[0].isascii():
            for index in range(word + 1, end):
                if _may_part(line[index - 1], line[index]):
                    yield start, word, index
                    start = word = index
        yield start, word, end


def _cells(text: str) -> int:
    """Return the cells of a text of which each character has its own: not every terminal joins some
    into one.
    """
    return len(text) if text.isascii() else sum(map(cell_len, text))


def _may_part(before: str, after: str) -> bool:
    """Whether a row may end between two characters without a space: beside those that fill two
    cells, but for Korean, which has spaces between words.
    """
    if not before or before == _JOINER or not cell_len(after):
        return False
    is_wide = any(cell_len(one) == 2 and not "가" <= one <= "힣" for one in (before, after))
    return (
        is_wide
        and unicodedata.category(after) not in _CLOSING
        and unicodedata.category(before) not in _OPENING
    )


def _hanging(lead: str, width: int) -> str:
    """Return what rows begin with that go on a line, in as many cells as characters: the bars of a
    quote, and spaces below the mark of an item.
    """
    match = _LEAD.match(lead[:_LONGEST_LEAD])
    hanging = match["quotes"] + " " * len(match["mark"]) if match else ""
    return hanging if len(hanging) <= width // 2 else ""
