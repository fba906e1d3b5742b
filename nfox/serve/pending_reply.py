"""Requests, and what comes of them, on their way between the event loop and the worker's thread."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from nfox.decoding.generate import Prompt
from nfox.reply import Reply, Settings
from nfox.serve.errors import DeadlineExceeded
from nfox.serve.logprobs import TokenLogprob
from nfox.text.messages import Message
from nfox.text.pieces import Piece
from nfox.text.thinking import Think


@dataclass(frozen=True)
class Question:
    """What one reply answers: messages, or a text or token ids to continue.

    Args:
        messages: a conversation to answer; if it is empty, `text` or `ids` is continued.
        text: a text to continue.
        ids: token ids to continue, instead of a text.
        think: whether the model is told to think about the conversation; None for the server's own
            setting.
    """

    messages: tuple[Message, ...] = ()
    text: str = ""
    ids: tuple[int, ...] = ()
    think: Think | None = None


@dataclass(frozen=True)
class ServeRequest:
    """A client's request: one reply or several, all with the same settings.

    Args:
        questions: what the replies answer, in this order.
        settings: the settings of the replies.
        first_number: the number of the first reply; the others follow. With the seed it fixes the
            noise of a reply's sampling.
        method: the name of the method that drafts; None for the server's own.
        top_logprobs: the number of likeliest tokens to return at every place of a reply, with
            log-probabilities; None returns no log-probabilities, not even of the reply's tokens.
        client: the address that asks, and the name of a user there: who takes turns in the queue.
    """

    questions: tuple[Question, ...]
    settings: Settings
    first_number: int = 0
    method: str | None = None
    top_logprobs: int | None = None
    client: tuple[str, str] = ("", "")

    @cached_property
    def size(self) -> int:
        """The characters and token ids of all questions."""
        return sum(
            len(question.text)
            + len(question.ids)
            + sum(len(message.content) + len(message.tool_fields) for message in question.messages)
            for question in self.questions
        )


@dataclass(frozen=True)
class Delta:
    """The event that a reply grew.

    Args:
        choice: the index of the question that the reply answers.
        pieces: the text that was added.
        logprobs: log-probabilities of the tokens that were added, where they were asked for. The
            text of a token may come in a later event.
        tokens: the number of tokens that the reply has by now.
        steps: the number of steps that it took by now.
    """

    choice: int
    pieces: tuple[Piece, ...]
    logprobs: tuple[TokenLogprob, ...] = ()
    tokens: int = 0
    steps: int = 0


@dataclass(frozen=True)
class Finished:
    """The event that a reply is complete.

    Args:
        choice: the index of the question that the reply answers.
        reply: the complete reply.
        logprobs: log-probabilities of all its tokens, where they were asked for.
    """

    choice: int
    reply: Reply
    logprobs: tuple[TokenLogprob, ...] = ()


Event = Delta | Finished
_Item = Event | Exception | None  # None: there are no more events


class PendingReply:
    """The replies to one request while they are made: an async iterator over their events.

    It belongs to the event loop in which it is made. The worker's thread puts events into it.

    Args:
        request: the request that is answered.
        seconds: the time that the request may take, waiting in the queue included.

    Attributes:
        prompts: those of the request's questions, once they were made.
    """

    def __init__(self, request: ServeRequest, seconds: float) -> None:
        self.request = request
        self.prompts: dict[Question, Prompt] | None = None
        self.begin = time.monotonic()
        self._seconds = seconds
        self._items: asyncio.Queue[_Item] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._begun = False
        self._ended = False
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        """Stop the decoding, and end the iteration. From the event loop only."""
        self.cancelled.set()
        self._items.put_nowait(None)

    def fail(self, error: Exception) -> None:
        """Stop the decoding, and raise an error where the events are iterated. From any thread."""
        self.cancelled.set()
        self.put(error)

    def abandoned(self) -> bool:
        """Whether nobody waits for the replies any more: the request was cancelled, or its time has
        passed. From any thread.
        """
        return self.cancelled.is_set() or time.monotonic() >= self.begin + self._seconds

    def ready(self) -> bool:
        """Whether nothing more is to be made before the decoding, if anybody waits for it at all.
        From any thread.
        """
        return self.prompts is not None or self.abandoned()

    def put(self, item: _Item) -> None:
        """Add an event, an error that ends the iteration, or None for its end. From any thread."""
        with suppress(RuntimeError):  # the event loop is closed, and whoever iterated is gone
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    def __aiter__(self) -> PendingReply:
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event and return it.

        Raises:
            DeadlineExceeded: if the request's time passes before its first event.
            NfoxError: if the request cannot be answered.
        """
        if self._ended:
            raise StopAsyncIteration
        item = await (self._items.get() if self._begun else self._first_item())
        self._begun = True
        self._ended = item is None or isinstance(item, Exception)
        if isinstance(item, Exception):
            raise item
        if item is None:
            raise StopAsyncIteration
        return item

    async def _first_item(self) -> _Item:
        """Wait for the first event as long as the request may take: a reply that has begun by then
        is cut by the worker, which has a second for that.
        """
        slack = 1.0
        try:
            return await asyncio.wait_for(self._items.get(), self._seconds + slack)
        except TimeoutError:
            self.cancel()
            message = f"there was no first token within {self._seconds:.0f} s"
            return DeadlineExceeded(message, "try again later")
