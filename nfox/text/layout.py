"""A conversation as it is written, from its text to its tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nfox.text.messages import Message
from nfox.text.rendering import Rendering
from nfox.text.stream import spelled

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

_NEAR = 64  # characters before a reply that are enough to spell its first one


@dataclass(frozen=True)
class Segment:
    """A stretch of a rendered conversation.

    Args:
        text: the text of the stretch; the texts of all segments, joined, are the conversation.
        message: the index of the message whose reply this is; None for questions and for the text
            of the template.
        supervised: whether a model is trained to write it: a reply, or the mark that ends one.
    """

    text: str
    message: int | None
    supervised: bool


@dataclass(frozen=True)
class Layout:
    """A conversation as it is written.

    Args:
        rendering: how the template writes it.
        text: what is written.
        first: the index of the first message among the rendering's turns.
        begun: where the reply begins that is continued; None where a new one is asked for.
    """

    rendering: Rendering
    text: str
    first: int
    begun: int | None

    def places(self, messages: Sequence[Message]) -> Iterator[tuple[int, int, int]]:
        """Yield the index of every reply that is written, and where it begins and ends."""
        for index, message in enumerate(messages):
            if self.begun is not None and index == len(messages) - 1:
                yield index, self.begun, len(self.text)
            elif message.role == "assistant":
                place = self.rendering.place(self.first + index)
                if place is not None:
                    yield index, *place

    def starts(self, messages: Sequence[Message]) -> list[tuple[int, int]]:
        """Return the index of every reply whose ids are known, and where it begins if it was
        written there right behind the prompt that it answered.
        """
        starts = []
        for index, message in enumerate(messages):
            if message.ids is None:
                continue
            if self.begun is not None and index == len(messages) - 1:
                starts.append((index, self.begun))
                continue
            prompt = self.rendering.prompt(self.first + index)
            if prompt is not None and self.text.startswith(prompt):
                starts.append((index, len(prompt)))
        return starts

    def tokens(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        starts: Sequence[tuple[int, int]],
        *,
        adds_bos: bool,
    ) -> tuple[list[int], list[int]]:
        """Return the token ids of a conversation, and for each the number of characters up to its
        end; those of a reply as it was generated all have the reply's.
        """
        ids: list[int] = []
        ends: list[int] = []
        at = 0

        def write(end: int) -> None:
            """Add the text up to there."""
            text_ids, text_ends = _tokenize(tokenizer, self.text[at:end], continues=bool(ids))
            bos = [] if ids or not adds_bos else _bos(tokenizer, self.text)
            ids.extend(bos + text_ids)
            ends.extend([0] * len(bos) + [at + text_end for text_end in text_ends])

        for index, start in starts:
            reply, end = messages[index].ids or (), len(self.text)
            if start < at:
                continue
            if start != self.begun:  # a reply that is continued goes on from what was said
                near = self.text[max(at, start - _NEAR) : start]
                before = ids + _tokenize(tokenizer, near, continues=bool(ids))[0]
                end = start + spelled(tokenizer, reply, before, self.text[start:])
            if end > start or start == self.begun:
                write(start)
                ids += reply
                ends += [end] * len(reply)
                at = end
        write(len(self.text))
        return ids, ends


def _bos(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids that a tokenizer puts before a text; none if the text begins with them."""
    if tokenizer.bos_token and text.startswith(tokenizer.bos_token):
        return []
    plain = tokenizer("a", add_special_tokens=False).input_ids
    full: list[int] = tokenizer("a").input_ids
    return full[: full.index(plain[0])]


def _tokenize(tokenizer: Tokenizer, text: str, *, continues: bool) -> tuple[list[int], list[int]]:
    """Return the token ids of a text, and for each the number of characters up to its end.

    A text that continues another is tokenised behind a short text with which it does not merge, so
    that a SentencePiece tokenizer puts no space before its first word.
    """
    for before in ("\n", "a", ".", "") if continues else ("",):
        options = {"add_special_tokens": False, "verbose": False}
        left = tokenizer(before, **options).input_ids
        both = tokenizer(before + text, return_offsets_mapping=tokenizer.is_fast, **options)
        ids: list[int] = both.input_ids
        if ids[: len(left)] == left and bool(left) == bool(before):
            offsets = both.offset_mapping if tokenizer.is_fast else [(0, 0)] * len(ids)
            ends = [max(0, end - len(before)) for _, end in offsets]
            return ids[len(left) :], ends[len(left) :]
    raise AssertionError("an empty text changes nothing")
