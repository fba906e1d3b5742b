"""What the engine says, in OpenAI's objects.

What speculation did stands in a field that clients ignore, `speculation`: in chunks where their
text came from, in the usage what was drafted, accepted and gained.
"""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from nfox.reply import Reply
from nfox.serve.jobs import Delta, Event, Finished
from nfox.serve.logprobs import Score
from nfox.text.stream import Piece, runs
from nfox.version import __version__

Json = dict[str, Any]
_REASONS = {"stop": "stop"}  # every other end is a length: of the reply, the context or the time


class Answer(ABC):
    """The answer to one request, whole or chunk by chunk.

    Args:
        model: as it was named.
        each: replies to every prompt.
        scored: whether log-probabilities were asked for.
    """

    prefix: str
    whole_object: str
    chunk_object: str

    def __init__(self, model: str, *, each: int = 1, scored: bool = False) -> None:
        self.scored = scored
        self._model = model
        self._each = each
        self._id = f"{self.prefix}-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._finished: list[Finished] = []
        self._pieces: dict[int, list[Piece]] = {}
        self._offsets: dict[int, int] = {}  # of the texts of tokens told in chunks

    def opening(self, choices: int) -> list[Json]:
        """Return the chunks that come before any text."""
        return []

    def take(self, event: Event) -> Json:
        """Take the next event; return its chunk."""
        if isinstance(event, Delta):
            self._pieces.setdefault(event.choice, []).extend(event.pieces)
            text = "".join(piece.text for piece in event.pieces)
            chunk = self._chunk(event.choice, self._added(text), event.scores)
            return chunk | {"speculation": {"runs": runs(event.pieces)}}
        self._finished.append(event)
        reply = event.reply
        told = {"speculation": speculation(reply), "timings": reply.stats.timings()}
        return self._chunk(event.choice, self._added(""), (), reply) | told

    def complete(self, choices: int) -> bool:
        """Whether all of so many replies are there."""
        return len(self._finished) == choices

    @property
    def texts(self) -> list[str]:
        """The texts of the replies."""
        return [event.reply.text for event in self._finished]

    def usage_chunk(self) -> Json:
        """Return the chunk that tells the usage."""
        return self._head(self.chunk_object) | {"choices": [], "usage": self.usage()}

    def whole(self) -> Json:
        """Return the answer as one object, after all its events were taken."""
        choices = [
            self._choice(event.choice, self._said(event.reply.text), event.scores, event.reply)
            for event in self._finished
        ]
        head = self._head(self.whole_object) | {"choices": choices, "usage": self.usage()}
        return head | {"timings": self._finished[-1].reply.stats.timings()}

    def usage(self) -> Json:
        """Return what was read, written, drafted and accepted, in all replies."""
        # A prompt counts once, however many replies it gets.
        first = [e.reply.stats for e in self._finished if e.choice % self._each == 0]
        read = sum(stats.prompt_tokens for stats in first)
        written = sum(event.reply.stats.tokens for event in self._finished)
        each = [
            speculation(event.reply) | {"runs": runs(self._pieces.get(event.choice, ()))}
            for event in self._finished
        ]
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": sum(stats.cached_tokens for stats in first)},
            "speculation": each[0] if len(each) == 1 else {"choices": each},
        }

    def _head(self, kind: str) -> Json:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "system_fingerprint": f"nfox-{__version__}",
        }

    def _chunk(
        self, choice: int, said: Json, scores: Sequence[Score], reply: Reply | None = None
    ) -> Json:
        return self._head(self.chunk_object) | {
            "choices": [self._choice(choice, said, scores, reply)]
        }

    def _choice(self, index: int, said: Json, scores: Sequence[Score], reply: Reply | None) -> Json:
        reason = _REASONS.get(reply.finish, "length") if reply else None
        start = 0 if reply else self._offsets.get(index, 0)
        self._offsets[index] = start + sum(len(score.text) for score in scores)
        told = self._told(scores, start) if self.scored else None
        return {"index": index, **said, "logprobs": told, "finish_reason": reason}

    @abstractmethod
    def _added(self, text: str) -> Json:
        """Return the field of a chunk's choice that has its text."""

    @abstractmethod
    def _said(self, text: str) -> Json:
        """Return the field of a whole choice that has its text."""

    @abstractmethod
    def _told(self, scores: Sequence[Score], start: int) -> Json:
        """Return log-probabilities.

        Args:
            scores: of tokens.
            start: where the text of the first one begins.
        """


class ChatAnswer(Answer):
    """See /v1/chat/completions."""

    prefix = "chatcmpl"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    @override
    def opening(self, choices: int) -> list[Json]:
        """The role."""
        said = {"delta": {"role": "assistant", "content": ""}}
        return [self._chunk(choice, said, ()) for choice in range(choices)]

    @override
    def _added(self, text: str) -> Json:
        return {"delta": {"content": text} if text else {}}

    @override
    def _said(self, text: str) -> Json:
        return {"message": {"role": "assistant", "content": text}}

    @override
    def _told(self, scores: Sequence[Score], start: int) -> Json:
        return {"content": [_entry(s) | {"top_logprobs": [*map(_entry, s.top)]} for s in scores]}


class TextAnswer(Answer):
    """See /v1/completions."""

    prefix = "cmpl"
    whole_object = chunk_object = "text_completion"

    @override
    def _added(self, text: str) -> Json:
        return {"text": text}

    @override
    def _said(self, text: str) -> Json:
        return {"text": text}

    @override
    def _told(self, scores: Sequence[Score], start: int) -> Json:
        ends = [start]
        for one in scores:
            ends.append(ends[-1] + len(one.text))
        return {
            "tokens": [one.text for one in scores],
            "token_logprobs": [one.logprob for one in scores],
            "top_logprobs": [{other.text: other.logprob for other in one.top} for one in scores],
            "text_offset": ends[:-1],
        }


def _entry(score: Score) -> Json:
    # Of a token that is a part of a character the bytes are not known.
    data = None if "\ufffd" in score.text else list(score.text.encode())
    return {"token": score.text, "logprob": score.logprob, "bytes": data}


def speculation(reply: Reply) -> Json:
    """Return what speculation did for a reply, and what ended it."""
    return reply.stats.spec(reply.method) | {"finish": reply.finish}
