"""Requests and what becomes of them, between the event loop and the worker's thread."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from nfox.errors import NfoxError
from nfox.reply import Reply, Settings
from nfox.serve.errors import Late
from nfox.serve.logprobs import Score
from nfox.text.messages import Message
from nfox.text.stream import Piece


@dataclass(frozen=True)
class Question:
    """What one reply answers.

    Args:
        messages: of a conversation; or
        text: to go on from; or
        ids: of tokens to go on from.
        reply: with the seed it fixes the noise.
    """

    messages: tuple[Message, ...] = ()
    text: str = ""
    ids: tuple[int, ...] = ()
    reply: int = 0


@dataclass(frozen=True)
class Asked:
    """A request: one reply or several, in the same way.

    Args:
        questions: answered in this order.
        settings: of the replies.
        method: None for the server's own.
        top: likeliest tokens to tell at every place; None tells no log-probabilities.
        client: whose turn it takes: an address, and somebody behind it.
    """

    questions: tuple[Question, ...]
    settings: Settings
    method: str | None = None
    top: int | None = None
    client: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Delta:
    """What was added to a reply.

    Args:
        choice: which question it answers.
        pieces: of text.
        scores: log-probabilities of tokens, where they were asked for.
    """

    choice: int
    pieces: tuple[Piece, ...]
    scores: tuple[Score, ...] = ()


@dataclass(frozen=True)
class Finished:
    """A reply is complete.

    Args:
        choice: which question it answers.
        reply: whole.
        scores: of all its tokens, where they were asked for.
    """

    choice: int
    reply: Reply
    scores: tuple[Score, ...] = ()


Event = Delta | Finished
_Told = Event | Exception | None


class Job:
    """A request on its way: an iterator over its events, for one event loop.

    Args:
        asked: what.
        seconds: it may take, waiting included.
    """

    def __init__(self, asked: Asked, seconds: float) -> None:
        self.asked = asked
        self.begin = time.monotonic()
        self._seconds = seconds
        self._told: asyncio.Queue[_Told] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._begun = False
        self._ended = False
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        """Stop it, wherever it is; there are no more events."""
        self.cancelled.set()
        self._told.put_nowait(None)

    def fail(self, error: NfoxError) -> None:
        """Stop it, and say why to whoever iterates. From any thread."""
        self.cancelled.set()
        self.tell(error)

    def over(self) -> bool:
        """Whether nobody waits for it any more, or its time has passed. From any thread."""
        return self.cancelled.is_set() or time.monotonic() >= self.begin + self._seconds

    def tell(self, what: _Told) -> None:
        """Hand something to whoever iterates; None is the end. From any thread."""
        with suppress(RuntimeError):  # they have gone with their event loop
            self._loop.call_soon_threadsafe(self._told.put_nowait, what)

    def __aiter__(self) -> Job:
        return self

    async def __anext__(self) -> Event:
        """Return the next event.

        Raises:
            Late: if its time passes while it waits.
            NfoxError: if it cannot be answered.
        """
        if self._ended:
            raise StopAsyncIteration
        told = await (self._told.get() if self._begun else self._first())
        self._begun = True
        self._ended = told is None or isinstance(told, Exception)
        if isinstance(told, Exception):
            raise told
        if told is None:
            raise StopAsyncIteration
        return told

    async def _first(self) -> _Told:
        """Wait for the worker; a reply that has begun is cut there when its time has passed."""
        slack = 1.0
        try:
            return await asyncio.wait_for(self._told.get(), self._seconds + slack)
        except TimeoutError:
            self.cancel()
            said = f"there was no first token within {self._seconds:.0f} s"
            return Late(said, "try again later")
