"""Token ids to text, one token at a time, each piece of text with its source.

The one idea: text leaves only when nothing that still comes can change it. An unfinished character
waits for its bytes, and what may be the beginning of a stop string waits until it is one or is not.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from nfox.decoding.tree import Source

_WEAKEST_LAST: tuple[Source, ...] = ("corrected", "bonus", "accepted")
_CONTEXT = 64  # tokens of the past that are enough to decode what follows them
_THINK = ("<think>", "</think>")
_JOINER = "\u200d"
_FLAG_LETTERS = "".join(map(chr, range(0x1F1E6, 0x1F200)))
# Besides Unicode's marks: joiners, Hangul vowels and finals, skin tones, the tags of flags.
_EXTENDING = {0x200C, 0x200D, *range(0x1160, 0x1200), *range(0x1F3FB, 0x1F400)}
_EXTENDING |= {*range(0xE0020, 0xE0080)}
_CONTROLS = dict.fromkeys(
    {*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
    - {ord("\n"), ord("\t")}
)


@dataclass(frozen=True)
class Piece:
    """A stretch of a reply's text that is shown in one style.

    Args:
        text: one character or more.
        source: of the tokens it is made of, the strongest claim that holds for every one of them:
            accepted only if all were, else corrected if any was, else bonus.
        step: index of the target forward that emitted its last token.
    """

    text: str
    source: Source
    step: int


_LETTERS: dict[Source, str] = {"accepted": "a", "corrected": "c", "bonus": "b"}


def runs(pieces: Iterable[Piece]) -> list[tuple[int, str]]:
    """Return where a text came from, as it goes into JSON: the length and letter of each stretch,
    "a" for accepted, "c" for corrected, "b" for bonus.
    """
    letters = (_LETTERS[piece.source] for piece in pieces for _ in piece.text)
    return [(len(list(stretch)), letter) for letter, stretch in groupby(letters)]


def sanitize(text: str) -> str:
    r"""Return the text without what would steer a terminal instead of being read.

    Removed: control characters (all but \n and \t, so ESC too), which move the cursor or talk to
    the terminal, and bidi overrides and isolates, which reorder what stands around them. The marks
    that Arabic and Hebrew need stay.
    """
    return text.translate(_CONTROLS)


def decode_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Return the text of token ids, without the text of special tokens."""
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    return str(tokenizer.decode(list(ids), **options))


class TextStream:
    """The text of one reply, as its tokens arrive.

    The texts of the pieces, joined, are `decode_text(tokenizer, ids)` up to the first stop string;
    with `context` they are what the ids add to the text of the context.

    Args:
        tokenizer: the target's.
        stop: strings that end the reply; of several, the one that is complete first counts.
        context: tokens before the first one pushed, when a reply is continued: without them a
            SentencePiece tokenizer drops the space in front of the first word.
        trim: leave out one space in front, which the token of a first word may bring along.

    Attributes:
        text: everything emitted so far.
        stopped_by: the stop string that was found. Neither it nor what follows is emitted.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        stop: Sequence[str] = (),
        context: Sequence[int] = (),
        *,
        trim: bool = False,
    ) -> None:
        self.text = ""
        self._trim = trim
        self.stopped_by: str | None = None
        self._tokenizer = tokenizer
        self._byte_tokens = _byte_tokens(tokenizer)
        self._ids = list(context[-_CONTEXT:])
        self._read = len(self._ids)  # ids before this one have left as text
        self._prefix = self._seen = self._decode()  # of the ids before; of all ids
        self._sources: set[Source] = set()  # of the ids whose text has not left
        self._step = 0
        self._stop = tuple(filter(None, stop))
        self._held: list[Piece] = []
        self._last: Source = "bonus"

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found."""
        return self.stopped_by is not None

    def push(self, token: int, source: Source, step: int) -> list[Piece]:
        """Take one more token; return the text that is now certain."""
        if self.stopped:
            return []
        self._ids.append(token)
        self._sources.add(source)
        self._step = step
        seen, text = self._seen, self._decode()
        self._seen = text
        # One bad byte spoils the whole run of byte tokens, so only the end of a run is certain,
        # which a token without text (a special one) is not.
        if token in self._byte_tokens or text == seen or text.endswith("\ufffd"):
            return []
        pieces = self._release(text[len(self._prefix) :])
        # What follows is decoded after the tokens just read, for the spaces between words.
        self._ids = self._ids[self._read :]
        self._read = len(self._ids)
        self._prefix = self._seen = self._decode()
        return pieces

    def finish(self) -> list[Piece]:
        """Return what was held back, an unfinished character included, when no token follows."""
        if self.stopped:
            return []
        text = self._decode()
        pieces = self._release(text[len(self._prefix) :])
        self._prefix = text
        rest, self._held = [] if self.stopped else self._held, []
        return pieces + self._emit(rest)

    def _decode(self) -> str:
        return decode_text(self._tokenizer, self._ids)

    def _emit(self, pieces: list[Piece]) -> list[Piece]:
        """Let pieces go."""
        if self._trim and pieces:
            self._trim = False
            pieces = _split(pieces, pieces[0].text.startswith(" "))[1]
        self.text += _text(pieces)
        return pieces

    def _release(self, text: str) -> list[Piece]:
        """Add text to what is held back, and return what need not be held any longer."""
        self._held += self._pieces(text)
        held = _text(self._held)
        # The first to be complete counts, so that the cut does not depend on how text was split.
        found = [(held.find(stop) + len(stop), held.find(stop), stop) for stop in self._stop]
        certain = (0, len(held) - _unfinished(held, self._stop), None)
        _, cut, self.stopped_by = min((f for f in found if f[1] >= 0), default=certain)
        pieces, self._held = _split(self._held, cut)
        return self._emit(pieces)

    def _pieces(self, text: str) -> list[Piece]:
        """Make pieces of new text, so that the style never changes inside a visible character."""
        if not text:
            return []
        source = next(source for source in _WEAKEST_LAST if source in self._sources)
        self._sources.clear()
        before = self.text + _text(self._held)
        same = 0
        while same < len(text) and _extends(before + text[:same], text[same]):
            same += 1
        parts = ((text[:same], self._last), (text[same:], source))
        self._last = source if same < len(text) else self._last
        return [Piece(part, whose, self._step) for part, whose in parts if part]


class ThinkSplitter:
    """Says of each piece whether it is inside `<think>...</think>`; both tags count as inside.

    Args:
        inside: whether the reply starts inside, as when the prompt ends with the opening tag.
    """

    def __init__(self, inside: bool = False) -> None:
        self.inside = inside
        self._held: list[Piece] = []

    def push(self, piece: Piece) -> list[tuple[Piece, bool]]:
        """Take one more piece; return those whose side is now certain."""
        self._held.append(piece)
        result: list[tuple[Piece, bool]] = []
        while (at := _text(self._held).find(_THINK[self.inside])) >= 0:
            result += self._take(at + self.inside * len(_THINK[True]))
            self.inside = not self.inside
        held = _text(self._held)
        return result + self._take(len(held) - _unfinished(held, (_THINK[self.inside],)))

    def finish(self) -> list[tuple[Piece, bool]]:
        """Return what was held back."""
        return self._take(len(_text(self._held)))

    def _take(self, characters: int) -> list[tuple[Piece, bool]]:
        pieces, self._held = _split(self._held, characters)
        return [(piece, self.inside) for piece in pieces]


def _byte_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the tokens that stand for one byte, where the tokenizer falls back to bytes."""
    ids = (tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in range(256))
    return frozenset(id for id in ids if isinstance(id, int)) - {tokenizer.unk_token_id}


def _text(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def _split(pieces: Sequence[Piece], at: int) -> tuple[list[Piece], list[Piece]]:
    """Cut the pieces after `at` characters."""
    left: list[Piece] = []
    right: list[Piece] = []
    for piece in pieces:
        cut = min(max(at, 0), len(piece.text))
        at -= len(piece.text)
        left += [replace(piece, text=piece.text[:cut])] if cut else []
        right += [replace(piece, text=piece.text[cut:])] if cut < len(piece.text) else []
    return left, right


def _unfinished(text: str, strings: Sequence[str]) -> int:
    """Return the length of the longest end of `text` that may become one of the strings."""
    lengths = (n for string in strings for n in range(1, len(string)) if text.endswith(string[:n]))
    return max(lengths, default=0)


def _extends(before: str, character: str) -> bool:
    """Say whether the character is drawn together with the one before it."""
    if not before:
        return False
    if character in _FLAG_LETTERS:
        return before[-1] == _JOINER or (len(before) - len(before.rstrip(_FLAG_LETTERS))) % 2 == 1
    return (
        before[-1] == _JOINER
        or unicodedata.category(character).startswith("M")
        or ord(character) in _EXTENDING
    )
