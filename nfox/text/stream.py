"""Token ids to text, one token at a time, each piece of text with its source.

The one idea: text leaves only when nothing that still comes can change it. An unfinished character
waits for its bytes, and what may be the beginning of a stop string waits until it is one or is not.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from nfox.text.known_tokens import known_tokens
from nfox.text.pieces import Piece, split_pieces, text_of, unfinished_length

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from nfox.decoding.tree import Source

# Of text that several tokens make up: the first of these that one of the tokens has.
_SOURCE_PRECEDENCE: tuple[Source, ...] = ("corrected", "bonus", "accepted")
_CONTEXT = 64  # tokens of the past that are enough to decode what follows them
_JOINER = "\u200d"
_FLAG_LETTERS = "".join(map(chr, range(0x1F1E6, 0x1F200)))
# Besides Unicode's marks: joiners, Hangul vowels and finals, skin tones, the tags of flags.
_EXTENDING = {0x200C, 0x200D, *range(0x1160, 0x1200), *range(0x1F3FB, 0x1F400)}
_EXTENDING |= {*range(0xE0020, 0xE0080)}


def decode_text(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, special: bool = False
) -> str:
    """Return the text of token ids, that of special tokens only where it is asked for."""
    options = {"skip_special_tokens": not special, "clean_up_tokenization_spaces": False}
    return str(tokenizer.decode(list(ids), **options))


def reply_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Return the text of a reply, without the one space that the token of a first word may bring
    along.
    """
    return decode_text(tokenizer, ids).removeprefix(" ")


def spells(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str) -> bool:
    """Return whether token ids, none of which is special, have a text, as `reply_text` gives it or
    with the space at its beginning.
    """
    special = set(getattr(tokenizer, "all_special_ids", ())).intersection(ids)
    return not special and text in (decode_text(tokenizer, ids), reply_text(tokenizer, ids))


def spelled(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], before: Sequence[int], text: str
) -> int:
    """Return how many characters at the beginning of a text the ids spell; 0 if they spell others.

    Args:
        tokenizer: of the model.
        ids: the token ids of a reply, special ones included.
        before: the token ids before them.
        text: the text that should stand there.
    """
    decoded, before = partial(decode_text, tokenizer, special=True), before[-_CONTEXT:]
    said = decoded([*before, *ids])[len(decoded(before)) :]
    if not text.startswith(said) and said.startswith(" "):
        # Some write a space before every stretch of text, also where none is read.
        first = tokenizer(said[1:], add_special_tokens=False).input_ids[:1]
        said = said[1:] if first == list(ids[:1]) else said
    return len(said) if text.startswith(said) else 0


class TextStream:
    """The text of one reply, as its tokens arrive.

    The texts of the pieces, joined, are `decode_text(tokenizer, ids)` up to the first stop string;
    with `context` they are what the ids add to the text of the context.

    Args:
        tokenizer: the tokenizer of the target.
        stop: the strings that end the reply; of several, the one that is complete first counts.
        context: the token ids before the first pushed one, when a reply is continued: without them
            a SentencePiece tokenizer drops the space before the first word.
        trim: whether to leave out one space at the beginning, which the token of a first word may
            bring along. No stop string is found in it.

    Attributes:
        text: the text that has been emitted so far.
        stopped_by: the stop string that was found, or None. Neither this string nor the text after
            it is emitted.
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
        self._known = known_tokens(tokenizer)
        self._ids = list(context[-_CONTEXT:])
        self._released = len(self._ids)  # the text of so many ids has left
        self._prefix = self._seen = self._decode()  # the text of these ids, and that of all ids
        self._sources: set[Source] = set()  # those of the ids whose text has not left
        self._step = 0
        self._stop = tuple(filter(None, stop))
        self._held: list[Piece] = []
        self._last_source: Source = "bonus"

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found."""
        return self.stopped_by is not None

    def push(self, token: int, source: Source, step: int) -> list[Piece]:
        """Take one more token; return the pieces of the text that is certain now.

        Args:
            token: the id of the token.
            source: whether it was accepted, corrected or is a bonus.
            step: the index of the decoding step that emitted it.
        """
        if self.stopped:
            return []
        self._ids.append(token)
        self._sources.add(source)
        self._step = step
        text_before, text = self._seen, self._decode()
        self._seen = text
        # One bad byte spoils the whole run of byte tokens, so only the end of a run is certain,
        # which a token without text (a special one) is not.
        if token in self._known.byte_tokens or text == text_before or text.endswith("\ufffd"):
            return []
        pieces = self._release(text[len(self._prefix) :])
        # What follows is decoded after the tokens just read, for the spaces between words.
        self._ids = self._ids[self._released :]
        self._released = len(self._ids)
        self._prefix = self._seen = self._decode_again(token)
        return pieces

    def finish(self) -> list[Piece]:
        """Return the pieces that were held back, an unfinished character included, after the last
        token.
        """
        if self.stopped:
            return []
        text = self._decode()
        pieces = self._release(text[len(self._prefix) :])
        self._prefix = text
        rest, self._held = [] if self.stopped else self._held, []
        return pieces + self._emit(rest)

    def _decode(self) -> str:
        return decode_text(self._tokenizer, self._ids)

    def _decode_again(self, token: int) -> str:
        """Return the text of all ids, of which the last is `token` and mostly the only one."""
        if len(self._ids) > 1:
            return self._decode()
        text = self._known.texts.get(token)
        if text is None:
            text = self._known.texts[token] = self._decode()
        return text

    def _emit(self, pieces: list[Piece]) -> list[Piece]:
        """Return pieces, and count their text as emitted."""
        self.text += text_of(pieces)
        return pieces

    def _release(self, text: str) -> list[Piece]:
        """Hold new text back; return the pieces that need not be held back any longer."""
        if self._trim and text:  # before stop strings are looked for: the space is not in the reply
            self._trim = False
            text = text.removeprefix(" ")
            if not text:
                self._sources.clear()  # that of the space: it has left, to nowhere
        self._held += self._pieces(text)
        held = text_of(self._held)
        # The first to be complete counts, so that the cut does not depend on how text was split.
        stops = [
            (start + len(stop), start, stop)
            for stop in self._stop
            if (start := held.find(stop)) >= 0
        ]
        no_stop = (0, len(held) - unfinished_length(held, self._stop), None)
        _, cut, self.stopped_by = min(stops, default=no_stop)
        pieces, self._held = split_pieces(self._held, cut)
        return self._emit(pieces)

    def _pieces(self, text: str) -> list[Piece]:
        """Return the pieces of new text; the source never changes inside a visible character."""
        if not text:
            return []
        source = next(source for source in _SOURCE_PRECEDENCE if source in self._sources)
        self._sources.clear()
        before = self.text + text_of(self._held)
        extension = 0  # characters that are drawn together with the last one before them
        while extension < len(text) and _extends(before + text[:extension], text[extension]):
            extension += 1
        parts = ((text[:extension], self._last_source), (text[extension:], source))
        self._last_source = source if extension < len(text) else self._last_source
        return [Piece(part, part_source, self._step) for part, part_source in parts if part]


def _extends(before: str, character: str) -> bool:
    """Return whether a character is drawn together with the last one of the text before it."""
    if not before:
        return False
    if character in _FLAG_LETTERS:
        return before[-1] == _JOINER or (len(before) - len(before.rstrip(_FLAG_LETTERS))) % 2 == 1
    return (
        before[-1] == _JOINER
        or unicodedata.category(character).startswith("M")
        or ord(character) in _EXTENDING
    )
