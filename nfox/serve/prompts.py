"""Questions to prompts, and the replies that later questions bring back as text."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from nfox.decoding.generate import Prompt
from nfox.engine import Engine
from nfox.errors import UsageError
from nfox.reply import Reply
from nfox.serve.pending_reply import Question
from nfox.text.messages import Message

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


def _prefix_digests(messages: Sequence[Message]) -> Iterator[bytes]:
    """Yield the SHA-256 digest of the messages up to and with each one."""
    digest = hashlib.sha256()
    for message in messages:
        for part in (message.role, message.content):
            data = part.encode()
            digest.update(len(data).to_bytes(8) + data)  # with the length, or "ab", "" is "a", "b"
        yield digest.digest()


class PromptEncoder:
    """Turns questions into token ids: earlier replies into those that they were generated as.

    Args:
        engine: has the template, the tokenizer and the model's limits.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reply_tokens = ReplyTokens()

    def encode(self, question: Question) -> Prompt:
        """Return the token ids of a question, whether they fit into the context or not.

        Raises:
            UsageError: if there is no token of a given id, or nothing to answer.
            NfoxError: if the template refuses the messages.
        """
        if question.messages:
            return self._engine.encode(self._reply_tokens.recall(question.messages))
        model = self._engine.model
        ids = tuple(question.ids or model.tokenizer(question.text).input_ids)
        size = model.target.vocabulary_size
        unknown = next((token for token in ids if not 0 <= token < size), None)
        if unknown is not None:
            raise UsageError(f"there is no token {unknown}", f"the model knows {size}")
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
        elif last.ids is not None and reply.ids:
            ids = (*last.ids, *reply.ids)
            self._reply_tokens.remember(
                [*before, Message(last.role, last.content + reply.text, ids)]
            )
