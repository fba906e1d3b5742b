"""Stretches of a reply's text, each with the source of its tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from nfox.decoding.tree import Source

Mark = TypeVar("Mark")
THINK_TAGS = ("<think>", "</think>")
"""What opens and closes the reasoning of a model in its reply."""


@dataclass(frozen=True)
class Piece:
    """A stretch of a reply's text that is shown in one style.

    Args:
        text: one character or more.
        source: the common source of the tokens that make up the text: "accepted" if all of them
            were accepted, else "corrected" if any was corrected, else "bonus".
        step: the index of the decoding step that emitted the last of these tokens.
    """

    text: str
    source: Source
    step: int


_LETTERS: dict[Source, str] = {"accepted": "a", "corrected": "c", "bonus": "b"}
_SOURCES = {letter: source for source, letter in _LETTERS.items()}


def source_runs(pieces: Iterable[Piece]) -> list[tuple[int, str]]:
    """Return the sources of a text run by run, as they are written to JSON.

    Each run has its length in characters and the letter of its source: "a" for accepted, "c" for
    corrected, "b" for bonus.
    """
    letters = (_LETTERS[piece.source] for piece in pieces for _ in piece.text)
    return [(len(list(run)), letter) for letter, run in groupby(letters)]


def pieces_of_runs(text: str, runs: Iterable[tuple[int, str]]) -> list[Piece]:
    """Return a text in pieces by what `source_runs` says of it, all as if of the first step."""
    return [Piece(part, _SOURCES[letter], 0) for part, letter in split_runs(text, runs)]


def pieces_of_steps(text: str, runs: Iterable[tuple[int, int]]) -> list[Piece]:
    """Return a text in pieces by what `step_runs` says of it, of no source that is known."""
    return [Piece(part, "bonus", step) for part, step in split_runs(text, runs)]


def split_runs(text: str, runs: Iterable[tuple[int, Mark]]) -> Iterator[tuple[str, Mark]]:
    """Yield the parts of a text, each with the mark of its run.

    Args:
        text: the text.
        runs: its parts in turn: their lengths in characters, and what marks them.
    """
    at = 0
    for length, mark in runs:
        yield text[at : at + length], mark
        at += length


def step_runs(pieces: Iterable[Piece]) -> list[tuple[int, int]]:
    """Return the steps that completed a text, run by run: characters, and the index of the step."""
    steps = (piece.step for piece in pieces for _ in piece.text)
    return [(len(list(run)), step) for step, run in groupby(steps)]


def text_of(pieces: Sequence[Piece]) -> str:
    """Return the text of pieces, joined."""
    return "".join(piece.text for piece in pieces)


def split_pieces(pieces: Sequence[Piece], at: int) -> tuple[list[Piece], list[Piece]]:
    """Return the pieces of the first `at` characters, and those of the characters after them."""
    before: list[Piece] = []
    after: list[Piece] = []
    for piece in pieces:
        if at >= len(piece.text):
            before.append(piece)
        elif at <= 0:
            after.append(piece)
        else:
            before.append(replace(piece, text=piece.text[:at]))
            after.append(replace(piece, text=piece.text[at:]))
        at -= len(piece.text)
    return before, after


def unfinished_length(text: str, strings: Sequence[str]) -> int:
    """Return the length of the longest suffix of a text that begins one of the strings, but is not
    all of it.
    """
    lengths = (n for string in strings for n in range(1, len(string)) if text.endswith(string[:n]))
    return max(lengths, default=0)


class ThinkSplitter:
    """Tells of each piece whether it stands inside `<think>...</think>`; both tags are inside.

    Args:
        inside: whether the reply begins inside, as it does after a prompt that ends with the
            opening tag.
    """

    def __init__(self, inside: bool = False) -> None:
        self.inside = inside
        self._held: list[Piece] = []

    def push(self, piece: Piece) -> list[tuple[Piece, bool]]:
        """Take one more piece; return those that are certain now, and whether each is inside."""
        self._held.append(piece)
        certain: list[tuple[Piece, bool]] = []
        while (at := text_of(self._held).find(THINK_TAGS[self.inside])) >= 0:
            certain += self._take(at + self.inside * len(THINK_TAGS[True]))
            self.inside = not self.inside
        held = text_of(self._held)
        return certain + self._take(len(held) - unfinished_length(held, (THINK_TAGS[self.inside],)))

    def finish(self) -> list[tuple[Piece, bool]]:
        """Return the pieces that were held back, after the last piece of a reply."""
        return self._take(len(text_of(self._held)))

    def _take(self, characters: int) -> list[tuple[Piece, bool]]:
        pieces, self._held = split_pieces(self._held, characters)
        return [(piece, self.inside) for piece in pieces]
