"""Messages to token ids: one renderer for the chat, for one-shot generation and for training.

The one idea: render the conversation with a placeholder for each reply. What stands between the
placeholders is the template's, whatever kind of template it is; into their place go the tokens the
reply was generated as, never tokenised again, or, where only its text is known, the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING

from nfox.errors import ModelError, NfoxError
from nfox.text.messages import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

Turn = dict[str, str]
HINT = "choose one with --conv-template NAME; `--conv-template list` shows them all"


@dataclass(frozen=True)
class Segment:
    """A stretch of a rendered conversation.

    Args:
        text: the text of the stretch; the texts of all segments, joined, are the conversation.
        message: the index of the message whose reply this is; None for questions and for the text
            of the template.
        supervised: whether a model is trained to write it: a supervised reply, or its end mark.
    """

    text: str
    message: int | None
    supervised: bool


@dataclass(frozen=True)
class Template:
    """How the conversations of a model are written.

    Args:
        name: the name of the template, as `--conv-template` takes it.
        origin: "conversation_templates", "fastchat", "tokenizer" or the path of a file.
        render: returns turns as text; its flag asks for the beginning of a reply after them.
        stop_strings: the strings that end a reply and are not tokens.
        stop_ids: the ids of the tokens that end a reply, besides the model's own end of sequence.
        system: the system message of a conversation that has none.
        adds_bos: whether the tokens that the tokenizer puts before a text, such as the beginning
            of sequence, are put before a conversation as well.
        end: the text that ends a reply; "" where that is neither a token nor a stop string.
    """

    name: str
    origin: str
    render: Callable[[Sequence[Turn], bool], str] = field(repr=False)
    stop_strings: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    system: str | None = None
    adds_bos: bool = True
    end: str = ""

    def segments(self, messages: Sequence[Message], *, generate: bool = True) -> list[Segment]:
        """Return a rendered conversation in segments.

        Args:
            messages: the conversation.
            generate: whether it ends where the model's next token belongs: at the beginning of a
                new reply, or at the end of the last message if that is a reply, which the model
                then continues.
        """
        continued = generate and [m.role for m in messages[-1:]] == ["assistant"]
        segments: list[Segment] = []
        learned = True
        for text, message, reply in self._parts(messages, generate and not continued):
            if message is None and continued:
                break
            end = re.match(rf"\s*{re.escape(self.end)}", text) if self.end and segments else None
            border = end.end() if end else 0
            segments += [Segment(text[:border], None, learned), Segment(text[border:], None, False)]
            if message is not None:
                learned = messages[message].supervised
                segments += [Segment(reply, message, learned)]
        return [segment for segment in segments if segment.text or segment.message is not None]

    def encode(
        self, tokenizer: Tokenizer, messages: Sequence[Message], *, generate: bool = True
    ) -> list[int]:
        """Return the token ids of a conversation, with those of replies as they were generated.

        Args:
            tokenizer: the tokenizer of the model.
            messages: the conversation.
            generate: whether it ends where the model's next token belongs, as in `segments`.
        """
        return self._encode(tokenizer, messages, generate)[0]

    def encode_supervised(
        self, tokenizer: Tokenizer, messages: Sequence[Message]
    ) -> tuple[list[int], list[bool]]:
        """Return the token ids of a finished conversation, and whether each is supervised.

        Raises:
            ModelError: if the tokenizer cannot say from which characters a token comes.
        """
        if not tokenizer.is_fast:
            raise ModelError("training needs a fast tokenizer (tokenizer.json)")
        return self._encode(tokenizer, messages, False)

    def with_end(self, tokenizer: Tokenizer) -> Template:
        """Return this template with the text that ends a reply, found by rendering one.

        Where a token is that text, or a stop string, it joins the `stop_ids`.
        """
        probe = [Message("user", "a"), Message("assistant", "b", ())]
        after, _, _ = self._parts(probe, False)[-1]
        tokens, stops = tokenizer.get_added_vocab(), self.stop_strings
        ends = [end for end in (*tokens, *stops) if end and after.lstrip().startswith(end)]
        end = max(ends, key=len, default="")
        ids = (*self.stop_ids, *(tokens[stop] for stop in (*stops, end) if stop in tokens))
        strings = tuple(stop for stop in stops if stop not in tokens)
        return replace(self, end=end, stop_ids=tuple(dict.fromkeys(ids)), stop_strings=strings)

    def _encode(
        self, tokenizer: Tokenizer, messages: Sequence[Message], generate: bool
    ) -> tuple[list[int], list[bool]]:
        """Return the token ids of a conversation, and whether each is supervised."""

        def generated_reply(segment: Segment) -> int | None:
            """Return the index of the message whose token ids stand for a segment, if any do."""
            index = segment.message
            return None if index is None or messages[index].ids is None else index

        ids: list[int] = []
        supervised: list[bool] = []
        for index, group in groupby(self.segments(messages, generate=generate), generated_reply):
            if index is not None:
                ids += messages[index].ids or ()
                supervised += [messages[index].supervised] * (len(ids) - len(supervised))
                continue
            run = list(group)
            text = "".join(segment.text for segment in run)
            flags = [False, *(segment.supervised for segment in run for _ in segment.text)]
            text_ids, ends = _tokenize(tokenizer, text, continues=bool(ids))
            bos = [] if ids or not self.adds_bos else _bos(tokenizer, text)
            ids += bos + text_ids
            # A token belongs where it ends: " Hi" to the reply, though its space may be before it.
            supervised += [False] * len(bos) + [flags[end] for end in ends]
        return ids, supervised

    def _parts(
        self, messages: Sequence[Message], generate: bool
    ) -> list[tuple[str, int | None, str]]:
        """Return for each reply the text before it, its message's index and its own text; last the
        text after all replies, without the two.
        """
        longest = max(
            (run for m in messages for run in re.findall("@reply@*", m.content)), default=""
        )
        mark = f"{longest or '@reply'}@"
        turns = [
            {"role": m.role, "content": f"{mark}{i};" if m.role == "assistant" else m.content}
            for i, m in enumerate(messages)
        ]
        if self.system is not None and all(turn["role"] != "system" for turn in turns):
            turns.insert(0, {"role": "system", "content": self.system})
        marked = self._write(turns, generate)
        *texts, rest = re.split(rf"{mark}(\d+);", marked)
        parts: list[tuple[str, int | None, str]] = []
        for text, index in zip(texts[::2], map(int, texts[1::2]), strict=True):
            at, prompt, reply = index + len(turns) - len(messages), text, messages[index].content
            # A reply begins where the prompt it answered ended, which may be before the template's
            # place for it: asked after "ASSISTANT:", a model writes the space itself.
            if at and turns[at - 1]["role"] == "user":
                prompt = re.split(rf"{mark}\d+;", self._write(turns[:at], True))[-1]
            if messages[index].ids is None:
                prompt = prompt if text.startswith(prompt) else text
                left, right = marked.split(turns[at]["content"], 1)
                left = left[: len(left) - len(text)] + prompt
                turn = {"role": "assistant", "content": reply}
                written = self._write([*turns[:at], turn, *turns[at + 1 :]], generate)
                middle = written[len(left) : len(written) - len(right)]
                # Templates trim. One that wrote something else around this text is not followed.
                followed = left + middle + right == written
                reply = middle if followed else text[len(prompt) :] + reply
            parts.append((prompt, index, reply))
        return [*parts, (rest, None, "")]

    def _write(self, turns: Sequence[Turn], generate: bool) -> str:
        """Return turns as `render` writes them, also where it takes no system message."""
        try:
            return self.render(turns, generate)
        except Exception as error:  # a template is a program, and not ours
            if [turn["role"] for turn in turns[:2]] == ["system", "user"]:
                # Some know no system message: there it opens the first question.
                text = "\n\n".join(turn["content"] for turn in turns[:2] if turn["content"])
                return self._write([{"role": "user", "content": text}, *turns[2:]], generate)
            complaint = " ".join(str(error).split()) or type(error).__name__
            raise NfoxError(f"conversation template {self.name}: {complaint}", HINT) from error


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
