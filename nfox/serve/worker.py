"""One worker thread that answers requests one after the other, for any number of clients.

A model decodes one conversation at a time, as fast as it can; what is asked meanwhile waits in a
fair queue. Everything that touches the model happens in this thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from nfox.decoding.cache import KVCache, common_prefix
from nfox.decoding.generate import Prompt
from nfox.drafters.common.method import Method
from nfox.engine import Engine
from nfox.errors import NfoxError, UsageError
from nfox.reply import Reply, Request, Settings
from nfox.serve.cache_pool import Caches, Replies
from nfox.serve.errors import Late, OutOfMemory, Stopping
from nfox.serve.fair_queue import FairQueue
from nfox.serve.jobs import Asked, Delta, Finished, Job, Question
from nfox.serve.logprobs import Score, scores
from nfox.text.messages import Message
from nfox.text.stream import decode_text

log = logging.getLogger(__name__)

_STOPPING = Stopping("the server is stopping", "ask again when it is back")


@dataclass(frozen=True)
class ServerLimits:
    """How much is taken on.

    Args:
        queue: requests that may wait.
        seconds: a request may take, waiting included; a reply is cut there.
        cache_bytes: KV caches of recent conversations may take.
    """

    queue: int = 256
    seconds: float = 600.0
    cache_bytes: int = 2 << 30


class Worker:
    """Answers requests with a `Engine`, which is its own from then on.

    Args:
        engine: the model, and the method of requests that name none.
        methods: that requests may name.
        limits: how much is taken on.
        on_reply: told every reply and its place in its request, and the seconds that this one
            waited.
    """

    def __init__(
        self,
        engine: Engine,
        methods: Sequence[str],
        limits: ServerLimits | None = None,
        on_reply: Callable[[Reply, int, float], None] = lambda reply, choice, waited: None,
    ) -> None:
        self.engine = engine
        self.method = engine.method
        self.methods = tuple(methods)
        self.limits = limits or ServerLimits()
        self.settings = engine.settings
        self.caches = Caches(engine.model.target.new_cache, self.limits.cache_bytes)
        self._on_reply = on_reply
        self._replies = Replies()
        self._drafters: dict[str, Method] = {engine.method: engine.drafter}
        self._queue: FairQueue[Job] = FairQueue(self.limits.queue, Job.over)
        self._job: Job | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="nfox worker", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Requests that are being answered: one or none."""
        return int(self._job is not None)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    def ask(self, asked: Asked) -> Job:
        """Take a request on; its events come from what is returned, in this event loop.

        Raises:
            Busy: if too many are waiting.
            Stopping: if the server ends.
            UsageError: if it names a method that requests may not name.
        """
        if self._stopping:
            raise _STOPPING
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
        return len(self._encode(question).ids)

    def stop(self) -> None:
        """Take nothing on any more; tell those who wait, or are being answered, that this ends."""
        self._stopping = True
        for job in (*self._queue.close(), self._job):
            if job is not None:
                job.fail(_STOPPING)

    def join(self, seconds: float) -> None:
        """Wait until the worker has ended, after `stop`: in the middle of a forward it would take
        the interpreter down with it.
        """
        self._thread.join(seconds)

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            if job.over():  # nobody listens, or they were told that it came too late
                continue
            self._job = job
            try:
                self._do(job)
            except NfoxError as error:
                job.tell(error)
            except torch.OutOfMemoryError:
                job.tell(OutOfMemory("the server's memory is full", "ask for a shorter reply"))
            except Exception as error:
                log.exception("a request failed")
                job.tell(error)
            finally:
                self._job = None
            job.tell(None)

    def _do(self, job: Job) -> None:
        asked, engine = job.asked, self.engine
        waited = time.monotonic() - job.begin
        name = asked.method or self.method
        if name not in self._drafters:
            self._drafters[name] = engine.make(name)
        settings = replace(asked.settings, keep_logits=asked.top is not None)
        # All of them first: what is wrong with the last is told before the first is answered.
        requests = [self._request(question, settings) for question in asked.questions]
        for choice, request in enumerate(requests):
            if job.cancelled.is_set():
                return
            reply = self._answer(job, choice, request, self._drafters[name])
            self._on_reply(reply, choice, waited)
            log.debug(
                "%s: %d tokens at %.1f tokens/s, tau %.2f, after %.1f s in the queue; %s",
                *(reply.method, reply.stats.tokens, reply.stats.tokens_per_second),
                *(reply.stats.tau, waited, reply.finish),
            )

    def _answer(self, job: Job, choice: int, request: Request, drafter: Method) -> Reply:
        """Decode one reply; keep the cache and the tokens that the next turn can use."""
        engine, top, told = self.engine, job.asked.top, list[Score]()
        prompt = request.prompt
        cache = self.caches.take(prompt.ids, prompt.encoder_ids)
        with engine.stream(request, drafter=drafter, cache=cache, cancelled=job.over) as stream:
            reply = stream.reply
            for update in stream.updates():
                new: tuple[Score, ...] = ()
                if top is not None and update.step is not None:
                    count = len(reply.ids) - len(told)
                    new = scores(engine.model.tokenizer, update.step, count, top)
                    told += new
                if update.pieces or new:
                    job.tell(Delta(choice, update.pieces, new))
        if not (reply.stats.steps or choice or job.cancelled.is_set()):
            raise Late("its time passed before the first token", "try again later")
        self._keep(cache, prompt, job.asked.questions[choice].messages, reply)
        begun = prompt.ids if prompt.continued else ()
        count = _of(engine.model.tokenizer, begun, reply, told)
        job.tell(Finished(choice, reply, tuple(told[:count])))
        return reply

    def _request(self, question: Question, settings: Settings) -> Request:
        """Return what answering a question takes.

        Raises:
            NfoxError: if it cannot be asked.
        """
        prompt = self._encode(question)
        prompt.check(self.engine.max_context)
        # A text that goes on without a template has no stop strings but its own.
        stops = self.engine.template.stop_strings if question.messages else ()
        return Request(prompt, settings, question.reply, stops)

    def _encode(self, question: Question) -> Prompt:
        """Return the token ids of a question, those of replies as they were generated.

        Raises:
            NfoxError: if it cannot be asked.
        """
        engine, tokenizer = self.engine, self.engine.model.tokenizer
        if question.messages:
            return engine.encode(list(self._replies.recall(question.messages)))
        ids = list(question.ids or tokenizer(question.text).input_ids)
        target = engine.model.target
        strange = [token for token in ids if not 0 <= token < target.vocabulary_size]
        if strange:
            known = target.vocabulary_size
            raise UsageError(f"there is no token {strange[0]}", f"the model knows {known}")
        if target.is_encoder_decoder:
            return Prompt((target.decoder_start_token,), tuple(ids))
        return Prompt(tuple(ids), continued=True)

    def _keep(
        self, cache: KVCache, prompt: Prompt, messages: Sequence[Message], reply: Reply
    ) -> None:
        ids = tuple(reply.ids)
        if cache.rollback:  # what was accepted behind the end of the reply was never said
            cache.truncate(common_prefix(cache.tokens, [*prompt.ids, *ids]))
        self.caches.keep(cache)
        if not messages:
            return
        *before, last = messages
        if last.role != "assistant":
            self._replies.remember([*messages, reply.message()])
        elif last.ids is not None and ids:
            whole = Message(last.role, last.content + reply.text, (*last.ids, *ids))
            self._replies.remember([*before, whole])


def _of(tokenizer: Any, begun: Sequence[int], reply: Reply, told: Sequence[Score]) -> int:
    """Return how many of the tokens told have their text in a reply, or a part of it."""
    if reply.ids or not reply.text:
        return len(reply.ids)
    # It was cut inside a token, so that its tokens are not known any more.
    before = decode_text(tokenizer, begun)
    for count in range(1, len(told)):
        ids = [score.token for score in told[:count]]
        text = decode_text(tokenizer, [*begun, *ids])[len(before) :]
        if len(text if begun else text.removeprefix(" ")) >= len(reply.text):
            return count
    return len(told)
