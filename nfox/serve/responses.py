"""Replies in OpenAI's response objects, whole or as the chunks of a stream.

What speculation did stands in a field that clients ignore, `speculation`: in chunks where their
text came from, in the usage what was drafted, accepted and gained.
"""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import accumulate

from typing_extensions import override

from nfox.reply import Reply
from nfox.serve.errors import Json
from nfox.serve.logprobs import TokenLogprob
from nfox.serve.pending_reply import Delta, Event, Finished, ServeRequest
from nfox.text.pieces import Piece, source_runs, text_of
from nfox.version import __version__


class ResponseBuilder(ABC):
    """The response to one request, built from the events of its replies.

    Args:
        request: the request that is answered.
        model: the model's name, as the client gave it.
        replies_per_prompt: the number of replies to every prompt, which OpenAI calls `n`.
    """

    id_prefix: str
    response_object: str
    chunk_object: str

    def __init__(self, request: ServeRequest, model: str, replies_per_prompt: int = 1) -> None:
        self._choices = range(len(request.questions))
        self._with_logprobs = request.top_logprobs is not None
        self._model = model
        self._replies_per_prompt = replies_per_prompt
        self._id = f"{self.id_prefix}-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._finished: list[Finished] = []
        self._pieces: dict[int, list[Piece]] = {}  # of every choice
        self._text_offsets: dict[int, int] = {}  # the length of the tokens in a choice's chunks

    def opening_chunks(self) -> list[Json]:
        """Return the chunks that come before any text."""
        return []

    def add(self, event: Event) -> Json:
        """Take the next event into the response; return the event's chunk."""
        if isinstance(event, Delta):
            self._pieces.setdefault(event.choice, []).extend(event.pieces)
            text = self._delta_field(text_of(event.pieces))
            told = {"runs": source_runs(event.pieces), "tokens": event.tokens, "steps": event.steps}
            return self._chunk(event.choice, text, event.logprobs) | {"speculation": told}
        self._finished.append(event)
        told = {"speculation": speculation(event.reply), "timings": event.reply.stats.timings()}
        return self._chunk(event.choice, self._delta_field(""), (), event.reply) | told

    @property
    def complete(self) -> bool:
        """Whether all replies are finished."""
        return len(self._finished) == len(self._choices)

    @property
    def texts(self) -> list[str]:
        """The texts of the finished replies, in their order."""
        return [event.reply.text for event in self._finished]

    def usage_chunk(self) -> Json:
        """Return the chunk that has the usage and no text."""
        return self._head(self.chunk_object) | {"choices": [], "usage": self.usage()}

    def response(self) -> Json:
        """Return the whole response as one object, after all events were added."""
        choices = [
            self._choice(done.choice, self._whole_field(done.reply.text), done.logprobs, done.reply)
            for done in self._finished
        ]
        head = self._head(self.response_object) | {"choices": choices, "usage": self.usage()}
        return head | {"timings": self._finished[-1].reply.stats.timings()}

    def usage(self) -> Json:
        """Return the numbers of tokens in the prompts and replies, and what speculation did."""
        replies = [event.reply.stats for event in self._finished]
        prompts = replies[:: self._replies_per_prompt]  # each counts once
        prompt_tokens = sum(stats.prompt_tokens for stats in prompts)
        cached_tokens = sum(stats.cached_tokens for stats in prompts)
        completion_tokens = sum(stats.tokens for stats in replies)
        reasoning_tokens = sum(stats.thought_tokens for stats in replies)
        summaries = [
            speculation(event.reply) | {"runs": source_runs(self._pieces.get(event.choice, ()))}
            for event in self._finished
        ]
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": reasoning_tokens},
            "speculation": summaries[0] if len(summaries) == 1 else {"choices": summaries},
        }

    def _head(self, kind: str) -> Json:
        """Return the fields that all objects of a response have; `kind` is OpenAI's `object`."""
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "system_fingerprint": f"nfox-{__version__}",
        }

    def _chunk(
        self,
        choice: int,
        text_field: Json,
        logprobs: Sequence[TokenLogprob],
        reply: Reply | None = None,
    ) -> Json:
        choices = [self._choice(choice, text_field, logprobs, reply)]
        return self._head(self.chunk_object) | {"choices": choices}

    def _choice(
        self, index: int, text_field: Json, logprobs: Sequence[TokenLogprob], reply: Reply | None
    ) -> Json:
        """Return an element of `choices`.

        Args:
            index: the index of the reply among those of its request.
            text_field: the field that has the text.
            logprobs: log-probabilities of its tokens.
            reply: the reply if it is complete, else None.
        """
        # What is no stop is a length: the reply's, the context's, the time.
        reason = ("stop" if reply.finish == "stop" else "length") if reply else None
        offset = 0 if reply else self._text_offsets.get(index, 0)
        self._text_offsets[index] = offset + sum(len(logprob.text) for logprob in logprobs)
        entry = self._logprobs(logprobs, offset) if self._with_logprobs else None
        return {"index": index, **text_field, "logprobs": entry, "finish_reason": reason}

    @abstractmethod
    def _delta_field(self, text: str) -> Json:
        """Return the field of a chunk's choice that has its text."""

    @abstractmethod
    def _whole_field(self, text: str) -> Json:
        """Return the field of a whole response's choice that has its text."""

    @abstractmethod
    def _logprobs(self, logprobs: Sequence[TokenLogprob], offset: int) -> Json:
        """Return log-probabilities as OpenAI's API has them.

        Args:
            logprobs: the log-probabilities of successive tokens.
            offset: where the first token's text begins in the text of the reply, in characters.
        """


class ChatResponse(ResponseBuilder):
    """The response of /v1/chat/completions."""

    id_prefix = "chatcmpl"
    response_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    @override
    def opening_chunks(self) -> list[Json]:
        """Return a chunk with the role for every reply."""
        role = {"delta": {"role": "assistant", "content": ""}}
        return [self._chunk(choice, role, ()) for choice in self._choices]

    @override
    def _delta_field(self, text: str) -> Json:
        return {"delta": {"content": text} if text else {}}

    @override
    def _whole_field(self, text: str) -> Json:
        return {"message": {"role": "assistant", "content": text}}

    @override
    def _logprobs(self, logprobs: Sequence[TokenLogprob], offset: int) -> Json:
        return {
            "content": [
                _chat_logprob(logprob) | {"top_logprobs": [*map(_chat_logprob, logprob.top)]}
                for logprob in logprobs
            ]
        }


class TextResponse(ResponseBuilder):
    """The response of /v1/completions."""

    id_prefix = "cmpl"
    response_object = chunk_object = "text_completion"

    @override
    def _delta_field(self, text: str) -> Json:
        return {"text": text}

    @override
    def _whole_field(self, text: str) -> Json:
        return {"text": text}

    @override
    def _logprobs(self, logprobs: Sequence[TokenLogprob], offset: int) -> Json:
        *offsets, _ = accumulate((len(logprob.text) for logprob in logprobs), initial=offset)
        return {
            "tokens": [logprob.text for logprob in logprobs],
            "token_logprobs": [logprob.logprob for logprob in logprobs],
            "top_logprobs": [
                {likely.text: likely.logprob for likely in logprob.top} for logprob in logprobs
            ],
            "text_offset": offsets,
        }


def _chat_logprob(logprob: TokenLogprob) -> Json:
    # Of a token that is a part of a character the bytes are not known.
    data = None if "\ufffd" in logprob.text else list(logprob.text.encode())
    return {"token": logprob.text, "logprob": logprob.logprob, "bytes": data}


def speculation(reply: Reply) -> Json:
    """Return what speculation did for a reply, and why the reply ended."""
    return reply.stats.spec(reply.method) | {"finish": reply.finish}
