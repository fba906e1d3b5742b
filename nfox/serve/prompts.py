"""Questions to prompts, and the replies that later questions bring back as text."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from nfox.decoding.generate import Prompt
from nfox.engine import Engine
from nfox.errors import NfoxError
from nfox.reply import Reply
from nfox.serve.pending_reply import Question
from nfox.serve.prompt_bound import PromptBound
from nfox.text.forms import Render
from nfox.text.messages import Message
from nfox.text.template import Template

_MAX_REPLIES = 4096  # remembered at most; a digest and a few hundred numbers each


class ReplyTokens:
    """The token ids that recent replies were generated as.

    A reply that a client sends back as text is read as these tokens, which the KV cache has;
    its text tokenised anew may be other tokens. Requests bring a whole conversation each and no
    name for it, so a reply is found by the messages up to it.
    """

    def __init__(self) -> None:
        self._ids: OrderedDict[bytes, tuple[int, ...]] = OrderedDict()  # by the messages' digest

    def remember(self, messages: Sequence[Message]) -> None:
        """Remember the token ids of the last message, if it has them.

        Args:
            messages: a conversation that ends with a reply.
        """
        ids = messages[-1].ids
        if ids is None:
            return
        *_, digest = _prefix_digests(messages)
        self._ids[digest] = ids
        self._ids.move_to_end(digest)
        if len(self._ids) > _MAX_REPLIES:
            self._ids.popitem(last=False)

    def recall(self, messages: Sequence[Message]) -> list[Message]:
        """Return the messages of a conversation, with the token ids of remembered replies."""
        digests = _prefix_digests(messages)
        return [
            replace(message, ids=self._ids.get(digest))
            for message, digest in zip(messages, digests, strict=True)
        ]


class _Watch:
    """Ends the rendering of a prompt that nobody waits for, or that does not fit.

    Args:
        given_up: asked before a template is rendered, which it is several times for one prompt.
        bound: of the prompt's text.
    """

    def __init__(self, given_up: Callable[[], bool], bound: PromptBound) -> None:
        self.error: NfoxError | None = None
        self._given_up = given_up
        self._bound = bound

    def render(self, render: Render, turns: Any, generate: bool) -> str:
        """Return what a template writes.

        Raises:
            NfoxError: if it was given up, or the text is certain not to fit.
        """
        try:
            if self._given_up():
                raise NfoxError("nobody waits for this prompt any more")
            text = render(turns, generate)
            if generate:  # a prompt, which is tokenised as it stands here
                self._bound.check(Question(text=text))
        except NfoxError as error:
            self.error = error
            raise
        return text


_watch: ContextVar[_Watch | None] = ContextVar("_watch", default=None)  # of this thread's prompt


def _watched(template: Template) -> Template:
    """Return a template that is rendered under the watch of its thread's prompt."""

    def watched(render: Render) -> Render:
        def rendered(turns: Any, generate: bool) -> str:
            watch = _watch.get()
            return watch.render(render, turns, generate) if watch else render(turns, generate)

        return rendered

    switch = template.switch
    if switch is not None:
        switch = replace(switch, on=watched(switch.on), off=watched(switch.off))
    return replace(template, render=watched(template.render), switch=switch)


def _prefix_digests(messages: Sequence[Message]) -> Iterator[bytes]:
    """Yield the SHA-256 digest of the messages up to and with each one."""
    digest = hashlib.sha256()
    for message in messages:
        for part in (message.role, message.content, message.tool_fields):
            data = part.encode()
            digest.update(len(data).to_bytes(8) + data)  # with the length, or "ab", "" is "a", "b"
        yield digest.digest()


class PromptEncoder:
    """Turns questions into token ids: earlier replies into those that they were generated as.

    Args:
        engine: has the template, which is watched from then on, and the tokenizer.

    Attributes:
        bound: tells which questions are certain not to fit into the context.
    """

    def __init__(self, engine: Engine) -> None:
        engine.use_template(_watched(engine.template))
        self.bound = PromptBound(engine)
        self._engine = engine
        self._reply_tokens = ReplyTokens()

    def encode(self, question: Question, given_up: Callable[[], bool] = lambda: False) -> Prompt:
        """Return the token ids of a question, unless they are certain not to fit into the context.

        Args:
            question: what is asked.
            given_up: asked again and again; True ends the work.

        Raises:
            UsageError: if there is nothing to answer.
            ContextError: if it is certain not to fit into the context.
            NfoxError: if the template refuses the messages, or it was given up.
        """
        if question.messages:
            watch = _Watch(given_up, self.bound)
            token = _watch.set(watch)
            try:
                messages = self._reply_tokens.recall(question.messages)
                return self._engine.encode(messages, question.think)
            except NfoxError as error:
                raise watch.error or error from None  # not in the words of a template's error
            finally:
                _watch.reset(token)
        model = self._engine.model
        ids = tuple(question.ids or model.tokenizer(question.text).input_ids)
        if model.target.is_encoder_decoder:
            return Prompt((model.target.decoder_start_token,), ids)
        return Prompt(ids, continued=True)

    def remember(self, question: Question, reply: Reply) -> None:
        """Remember the token ids of a reply for the next turn of its conversation."""
        if not question.messages:
            return
        *before, last = self._reply_tokens.recall(question.messages)
        if last.role != "assistant":
            self._reply_tokens.remember([*question.messages, reply.message()])
        elif last.ids is not None and reply.ids and not reply.is_cut_inside:
            ids = (*last.ids, *reply.ids)
            self._reply_tokens.remember(
                [*before, Message(last.role, last.content + reply.text, ids)]
            )
