"""Messages to token ids: one renderer for the chat, for one-shot generation and for training.

The one idea: the text of a prompt is what the template writes of the messages' texts, whatever kind
of template it is. Where the tokens that a reply was generated as spell what stands in its place,
they go there and are never tokenised again; where the template cuts or trims what was said, its own
text goes there.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING

from nfox.errors import ModelError, NfoxError
from nfox.text.forms import Render, Turn
from nfox.text.layout import Layout, Segment
from nfox.text.messages import Message
from nfox.text.rendering import Rendering
from nfox.text.thinking import Think, ThinkSwitch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

log = logging.getLogger(__name__)

HINT = "`nfox --conv-template list` shows them all, in the chat /template list"


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
        switch: the template's own switch for thinking; None if it has none.
    """

    name: str
    origin: str
    render: Render = field(repr=False)
    stop_strings: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    system: str | None = None
    adds_bos: bool = True
    end: str = ""
    switch: ThinkSwitch | None = field(default=None, repr=False)

    @property
    def in_words(self) -> str:
        """Which template it is, for the person."""
        if self.origin == "tokenizer":
            return f"the model's own template ({self.name})"
        return f"the template {self.name}"

    def told(self, think: Think) -> Template:
        """Return this template with thinking switched on or off, where it has a switch for it."""
        if self.switch is None or think == "auto":
            return self
        return replace(self, render=self.switch.on if think == "on" else self.switch.off)

    def segments(self, messages: Sequence[Message], *, generate: bool = True) -> list[Segment]:
        """Return a rendered conversation in segments.

        Args:
            messages: the conversation.
            generate: whether it ends where the model's next token belongs: at the beginning of a
                new reply, or at the end of the last message if that is a reply, which the model
                then continues.
        """
        with self._named():
            return self._segments(self._layout(messages, generate), messages)

    def text(self, messages: Sequence[Message], *, generate: bool = True) -> str:
        """Return the text of a rendered conversation.

        Args:
            messages: the conversation.
            generate: whether it ends where the model's next token belongs, as in `segments`.
        """
        with self._named():
            return self._layout(messages, generate).text

    def encode(
        self, tokenizer: Tokenizer, messages: Sequence[Message], *, generate: bool = True
    ) -> list[int]:
        """Return the token ids of a conversation, with those of replies as they were generated.

        Args:
            tokenizer: the tokenizer of the model.
            messages: the conversation.
            generate: whether it ends where the model's next token belongs, as in `segments`.
        """
        with self._named():
            layout = self._layout(messages, generate)
            starts = layout.starts(messages)
        return layout.tokens(tokenizer, messages, starts, adds_bos=self.adds_bos)[0]

    def encode_supervised(
        self, tokenizer: Tokenizer, messages: Sequence[Message]
    ) -> tuple[list[int], list[bool]]:
        """Return the token ids of a finished conversation, and whether each is supervised.

        Raises:
            ModelError: if the tokenizer cannot say from which characters a token comes.
        """
        if not tokenizer.is_fast:
            raise ModelError("training needs a fast tokenizer (tokenizer.json)")
        with self._named():
            layout = self._layout(messages, False)
            segments = self._segments(layout, messages)
            starts = layout.starts(messages)
        flags = [False, *(segment.supervised for segment in segments for _ in segment.text)]
        ids, ends = layout.tokens(tokenizer, messages, starts, adds_bos=self.adds_bos)
        # A token belongs where it ends: " Hi" to the reply, though its space may be before it.
        return ids, [flags[end] for end in ends]

    def with_end(self, tokenizer: Tokenizer) -> Template:
        """Return this template with the text that ends a reply, found by rendering one.

        Where a token is that text, or a stop string, it joins the `stop_ids`.
        """
        with self._named():
            rendering = self._probe()
            place = rendering.place(len(rendering.turns) - 1)
        after_reply = rendering.text[place[1] :] if place else ""
        tokens, stops = tokenizer.get_added_vocab(), self.stop_strings
        ends = [end for end in (*tokens, *stops) if end and after_reply.lstrip().startswith(end)]
        end = max(ends, key=len, default="")
        ids = (*self.stop_ids, *(tokens[stop] for stop in (*stops, end) if stop in tokens))
        strings = tuple(stop for stop in stops if stop not in tokens)
        return replace(self, end=end, stop_ids=tuple(dict.fromkeys(ids)), stop_strings=strings)

    def _probe(self) -> Rendering:
        """Return a question and its reply as they are written, behind a system message if one must
        stand there. A template that does not write the question is refused.
        """
        system, question = {"role": "system", "content": "s"}, {"role": "user", "content": "a"}
        refusals: list[Exception] = []
        for asked in ([question], [system, question]):
            try:
                self._check(Rendering.of(self.render, asked, True))
                reply = {"role": "assistant", "content": "b"}
                return Rendering.of(self.render, [*asked, reply], False)
            except Exception as error:  # a template is a program, and not ours
                refusals.append(error)
        raise refusals[0]

    def _layout(self, messages: Sequence[Message], generate: bool) -> Layout:
        """Return a conversation as it is written, once it is certain that nothing of it is lost."""
        turns: list[Turn] = [message.turn for message in messages]
        if self.system is not None and all(turn["role"] != "system" for turn in turns):
            turns.insert(0, {"role": "system", "content": self.system})
        first = len(turns) - len(messages)
        if not generate or [m.role for m in messages[-1:]] != ["assistant"]:
            rendering = Rendering.of(self.render, turns, generate)
            self._check(rendering)
            return Layout(rendering, rendering.text, first, None)
        if messages[-1].ids is not None and len(turns) > 1:  # it goes on exactly where it was cut
            rendering = Rendering.of(self.render, turns[:-1], True)
            self._check(rendering)
            text = rendering.text
            return Layout(rendering, text + messages[-1].content, first, len(text))
        rendering = Rendering.of(self.render, turns, False)
        self._check(rendering)
        text, prompt = rendering.begun(), rendering.prompt(len(turns) - 1) or ""
        begun = len(prompt) or max(len(text) - len(turns[-1]["content"]), 0)
        return Layout(rendering, text, first, begun if text.startswith(prompt) else len(text))

    def _check(self, rendering: Rendering) -> None:
        """Refuse a rendering without the question; say once what else is left out.

        Raises:
            ModelError: if the question is left out.
        """
        roles = [turn["role"] for turn in rendering.turns]
        lost = rendering.lost()
        if roles[-1:] == ["user"] and len(roles) - 1 in lost:
            raise ModelError("it leaves out the question")
        for role in dict.fromkeys((*rendering.form.lost, *(roles[index] for index in lost))):
            say(f"the conversation template {self.name} leaves out messages of the {role}")

    def _segments(self, layout: Layout, messages: Sequence[Message]) -> list[Segment]:
        """Return a conversation as it is written, in segments."""
        segments: list[Segment] = []
        at, learned = 0, True
        for index, start, end in [*layout.places(messages), (None, len(layout.text), None)]:
            if start < at:
                continue
            before = layout.text[at:start]
            mark = re.match(rf"\s*{re.escape(self.end)}", before) if self.end and segments else None
            border = mark.end() if mark else 0
            segments.append(Segment(before[:border], None, learned))
            segments.append(Segment(before[border:], None, False))
            if index is not None:
                learned = messages[index].supervised
                segments.append(Segment(layout.text[start:end], index, learned))
            at = end or start
        return [segment for segment in segments if segment.text or segment.message is not None]

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Name the template in errors that it causes: it is a program, and not ours."""
        try:
            yield
        except Exception as error:
            kind = ModelError if isinstance(error, ModelError) else NfoxError
            complaint = " ".join(str(error).split()) or type(error).__name__
            raise kind(f"conversation template {self.name}: {complaint}", HINT) from error


@cache
def say(line: str) -> None:
    """Say something once."""
    log.warning(line)
