"""One worker thread that answers requests one after the other, for any number of clients.

A model decodes one conversation at a time, as fast as it can; what is asked meanwhile waits in a
fair queue. Everything that touches the model happens in this thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch

from nfox.cache import common_prefix
from nfox.chat import Chat
from nfox.conversation import Message
from nfox.drafters.base import Drafter
from nfox.errors import NfoxError, UsageError
from nfox.reply import Reply, Settings
from nfox.serve.errors import Late
from nfox.serve.past import Caches, Replies
from nfox.serve.queue import FairQueue
from nfox.serve.scores import Score, scores
from nfox.stream import Piece

log = logging.getLogger(__name__)


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
class _Encoded:
    """A question as `Chat.decode` takes it."""

    prompt: Sequence[int]
    begun: Sequence[int]
    source: tuple[int, ...] | None = None
    stops: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """A request: one reply or several, in the same way.

    Args:
        questions: answered in this order.
        settings: of the replies.
        method: None for the server's own.
        top: likeliest tokens to tell at every place; None tells no log-probabilities.
        client: whose turn it takes.
    """

    questions: tuple[Question, ...]
    settings: Settings
    method: str | None = None
    top: int | None = None
    client: str = ""


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
            return Late(f"after {self._seconds:.0f} s others were still first", "try again later")


@dataclass(frozen=True)
class Limits:
    """How much is taken on.

    Args:
        queue: requests that may wait.
        seconds: a request may take, waiting included; a reply is cut there.
        cache_bytes: KV caches of recent conversations may take.
    """

    queue: int = 256
    seconds: float = 600.0
    cache_bytes: int = 2 << 30


class Engine:
    """Answers requests with a `Chat`, which is its own from then on.

    Args:
        chat: the model, and the method of requests that name none.
        methods: that requests may name.
        limits: how much is taken on.
        on_reply: told every reply, and the seconds that its request waited before.
    """

    def __init__(
        self,
        chat: Chat,
        methods: Sequence[str],
        limits: Limits | None = None,
        on_reply: Callable[[Reply, float], None] = lambda reply, waited: None,
    ) -> None:
        self.chat = chat
        self.method = chat.method
        self.methods = tuple(methods)
        self.limits = limits or Limits()
        self.settings = chat.settings
        self.caches = Caches(chat.model.target.new_cache, self.limits.cache_bytes)
        self.running = 0
        self._on_reply = on_reply
        self._replies = Replies()
        self._drafters: dict[str, Drafter] = {chat.method: chat.drafter}
        self._queue: FairQueue[Job] = FairQueue(self.limits.queue, Job.over)
        threading.Thread(target=self._work, name="nfox worker", daemon=True).start()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    def ask(self, asked: Asked) -> Job:
        """Take a request on; its events come from what is returned, in this event loop.

        Raises:
            Busy: if too many are waiting.
            UsageError: if it names a method that requests may not name.
        """
        if asked.method is not None and asked.method not in self.methods:
            known = ", ".join(self.methods)
            raise UsageError(f"there is no method {asked.method} here", f"available: {known}")
        job = Job(asked, self.limits.seconds)
        self._queue.put(asked.client, job)
        return job

    def count(self, question: Question) -> int:
        """Return the number of tokens that a question has. From any thread.

        Raises:
            NfoxError: if the template refuses it.
        """
        return len(self._encode(question).prompt)

    def _work(self) -> None:
        while True:
            job = self._queue.get()
            if job.over():  # nobody listens, or they were told that it came too late
                continue
            self.running = 1
            try:
                self._do(job)
            except NfoxError as error:
                job.tell(error)
            except torch.OutOfMemoryError:
                job.tell(NfoxError("out of memory", "ask for a shorter reply"))
            except Exception as error:
                log.exception("a request failed")
                job.tell(error)
            finally:
                self.running = 0
            job.tell(None)

    def _do(self, job: Job) -> None:
        asked, chat = job.asked, self.chat
        waited = time.monotonic() - job.begin
        name = asked.method or self.method
        if name not in self._drafters:
            self._drafters[name] = chat.make(name)
        chat.method, chat.drafter = name, self._drafters[name]
        chat.settings = replace(asked.settings, keep_logits=asked.top is not None)
        for choice, question in enumerate(asked.questions):
            if job.cancelled.is_set():
                return
            self._answer(job, choice, question)
            self._on_reply(chat.reply, waited)

    def _answer(self, job: Job, choice: int, question: Question) -> None:
        """Decode one reply; keep what the next turn can use."""
        chat, top, told = self.chat, job.asked.top, list[Score]()
        asked = self._encode(question)
        chat.cache = self.caches.take(asked.prompt, asked.source)
        chat.replies = question.reply
        updates = chat.decode(
            asked.prompt, asked.begun, asked.source, stop_strings=asked.stops, stop=job.over
        )
        for update in updates:
            new: tuple[Score, ...] = ()
            if top is not None and update.step is not None:
                count = len(chat.reply.ids) - len(told)
                new = scores(chat.model.tokenizer, update.step, count, top)
                told += new
            if update.pieces or new:
                job.tell(Delta(choice, update.pieces, new))
        if not chat.reply.stats.steps and not job.cancelled.is_set():
            raise Late("there was no time left for a single token", "try again later")
        self._keep(asked, question.messages, chat.reply)
        job.tell(Finished(choice, chat.reply, tuple(told[: len(chat.reply.ids)])))

    def _encode(self, question: Question) -> _Encoded:
        """Return the token ids of a question, those of replies as they were generated."""
        chat, tokenizer = self.chat, self.chat.model.tokenizer
        if question.messages:
            messages = self._replies.recall(question.messages)
            prompt, source = chat.encode(messages)
            continued = messages[-1].role == "assistant"
            begun = prompt if continued else []
            return _Encoded(prompt, begun, source, chat.template.stop_strings)
        ids = list(question.ids or tokenizer(question.text).input_ids)
        strange = [token for token in ids if not 0 <= token < chat.model.target.vocabulary]
        if strange:
            known = chat.model.target.vocabulary
            raise UsageError(f"there is no token {strange[0]}", f"the model knows {known}")
        return _Encoded(ids, ids)

    def _keep(self, asked: _Encoded, messages: Sequence[Message], reply: Reply) -> None:
        cache, ids = self.chat.cache, tuple(reply.ids)
        if cache.rollback:  # what was accepted behind the end of the reply was never said
            cache.truncate(common_prefix(cache.tokens, [*asked.prompt, *ids]))
        self.caches.keep(cache)
        if not messages:
            return
        *before, last = messages
        if last.role != "assistant":
            self._replies.remember([*messages, reply.message()])
        elif last.ids is not None and ids:
            whole = Message(last.role, last.content + reply.text, (*last.ids, *ids))
            self._replies.remember([*before, whole])
