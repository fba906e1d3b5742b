"""One worker thread that answers requests one after the other, for any number of clients.

A model decodes one conversation at a time, as fast as it can; what is asked meanwhile waits in a
fair queue, where its prompt is made. Everything that runs the model happens in this thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from nfox.decoding.cache import KVCache, common_prefix
from nfox.drafters.common.method import Method
from nfox.engine import Engine
from nfox.errors import ModelError, NfoxError
from nfox.reply import Reply, Request
from nfox.serve.cache_pool import CachePool
from nfox.serve.errors import OutOfMemory, ServerStopping, WrongParameter
from nfox.serve.fair_queue import FairQueue
from nfox.serve.logprobs import SpelledLogprobs
from nfox.serve.pending_reply import Delta, Finished, PendingReply, Question, ServeRequest
from nfox.serve.prompt_threads import PromptThreads
from nfox.serve.prompts import PromptEncoder
from nfox.serve.telling import tell

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerLimits:
    """How much a worker takes on.

    Args:
        queue: the number of requests that may wait.
        seconds: the time that a request may take, waiting included; a reply is cut there.
        cache_bytes: the memory that KV caches of recent conversations may take, in bytes.
    """

    queue: int = 256
    seconds: float = 600.0
    cache_bytes: int = 2 << 30


class Worker:
    """Answers requests with an `Engine`, which nobody else uses from then on.

    Args:
        engine: the model, the settings of requests that are silent about them, and the method that
            drafts for requests that name none.
        methods: the names of the methods that requests may name.
        limits: how much the worker takes on.
        on_reply: is called with every complete reply, its index among those of its request, and the
            seconds that the request waited in the queue. From the worker's thread.

    Attributes:
        caches: the KV caches of recent conversations.
    """

    def __init__(
        self,
        engine: Engine,
        methods: Sequence[str],
        limits: WorkerLimits | None = None,
        on_reply: Callable[[Reply, int, float], None] = lambda reply, choice, queue_seconds: None,
    ) -> None:
        self.engine = engine
        self.methods = tuple(methods)
        self.limits = limits or WorkerLimits()
        self.caches = CachePool(engine.model.target.new_cache, self.limits.cache_bytes)
        self._on_reply = on_reply
        self._prompts = PromptEncoder(engine)
        self._drafters: dict[str, Method] = {engine.method: engine.drafter}
        self._queue: FairQueue[PendingReply] = FairQueue(
            self.limits.queue, PendingReply.abandoned, PendingReply.ready
        )
        self._current: PendingReply | None = None
        self._threads = PromptThreads(
            self._queue, self._prompts, engine.max_context, engine.model.target.vocabulary_size
        )
        self._thread = threading.Thread(target=self._run, name="nfox worker", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """The number of requests that are being answered: one or none."""
        return int(self._current is not None)

    @property
    def waiting(self) -> int:
        """The number of requests in the queue."""
        return len(self._queue)

    def submit(self, request: ServeRequest) -> PendingReply:
        """Put a request into the queue; return its replies, which belong to this event loop.

        Raises:
            QueueFull: if too many requests are waiting.
            ServerStopping: if the worker has been stopped.
            ContextError: if a prompt is certain not to fit into the context.
            WrongParameter: if the request names a method that requests may not name.
        """
        if request.method is not None and request.method not in self.methods:
            available = ", ".join(self.methods)
            message = f"there is no method {request.method} here"
            raise WrongParameter("method", message, f"available: {available}")
        for question in dict.fromkeys(request.questions):
            self._prompts.bound.check(question)
        pending = PendingReply(request, self.limits.seconds)
        self._queue.put(request.client, pending)
        return pending

    def count_tokens(self, question: Question) -> int:
        """Return the number of tokens that a question has; of one that is certain not to fit into
        the context, how many it has at least. From any thread.

        Raises:
            NfoxError: if the template refuses it.
        """
        least = self._prompts.bound.least_tokens(question)
        if least > self.engine.max_context:
            return least
        return len(self._prompts.encode(question).ids)

    def stop(self) -> None:
        """Take no more requests, and let those that wait or are being answered fail."""
        waiting = self._queue.close()
        for pending in (*waiting, self._current):
            if pending is not None:
                pending.fail(ServerStopping())

    def join(self, seconds: float) -> None:
        """Wait until the threads have ended after `stop`, for so many seconds at most: one in the
        middle of a forward would take the interpreter down with it.
        """
        end = time.monotonic() + seconds
        self._thread.join(seconds)
        self._threads.join(max(0.0, end - time.monotonic()))

    def _run(self) -> None:
        while (pending := self._queue.get()) is not None:
            if pending.abandoned():  # nobody listens, or they were told that it came too late
                continue
            self._current = pending
            try:
                if self._queue.closed:  # by a `stop` that found it neither in the queue nor here
                    raise ServerStopping
                self._handle(pending)
            except NfoxError as error:
                pending.put(error)
            except torch.OutOfMemoryError:
                pending.put(OutOfMemory("the server's memory is full", "ask for a shorter reply"))
            except Exception as error:
                log.exception("a request failed")
                pending.put(error)
            finally:
                self._current = None
            pending.put(None)

    def _handle(self, pending: PendingReply) -> None:
        """Answer all questions of a request."""
        request = pending.request
        queue_seconds = time.monotonic() - pending.begin
        drafter = self._drafter(request.method or self.engine.method)
        settings = replace(request.settings, keep_logits=request.top_logprobs is not None)
        prompts = pending.prompts or {}
        for choice, question in enumerate(request.questions):
            if pending.cancelled.is_set():
                return
            # A text that is continued without a template has no stop strings but its own.
            stop_strings = self.engine.template.stop_strings if question.messages else ()
            number = request.first_number + choice
            reply = self._answer(
                pending, choice, Request(prompts[question], settings, number, stop_strings), drafter
            )
            self._on_reply(reply, choice, queue_seconds)
            log.debug(
                "%s: %d tokens at %.1f tokens/s, tau %.2f, after %.1f s in the queue; %s",
                *(reply.method, reply.stats.tokens, reply.stats.tokens_per_second),
                *(reply.stats.tau, queue_seconds, reply.finish),
            )

    def _drafter(self, method: str) -> Method:
        """Return the drafter of a method, which is loaded when it is first asked for."""
        if method not in self._drafters:
            self._drafters[method] = self.engine.make(method)
        return self._drafters[method]

    def _answer(
        self, pending: PendingReply, choice: int, request: Request, drafter: Method
    ) -> Reply:
        """Decode one reply and put its events; keep what the conversation's next turn, or the same
        request when it is made again, can use.

        Raises:
            DeadlineExceeded: if the request's time passes before its first token.
            ModelError: if the target computes logits that are no numbers; its cache is lost.
        """
        prompt, top_count = request.prompt, pending.request.top_logprobs
        begun = prompt.ids if prompt.continued else ()
        logprobs = SpelledLogprobs(self.engine.model.tokenizer, begun, top_count or 0)
        cache = self.caches.take(prompt.ids, prompt.encoder_ids)
        given_up = pending.abandoned
        stream = self.engine.stream(request, drafter=drafter, cache=cache, cancelled=given_up)
        try:
            reply = tell(pending, choice, stream, logprobs)
        except ModelError:
            raise
        except NfoxError:
            self._keep(cache, prompt.ids)
            raise
        self._keep(cache, [*prompt.ids, *reply.ids])
        self._prompts.remember(pending.request.questions[choice], reply)
        if rest := logprobs.finish(reply):
            pending.put(Delta(choice, (), rest, len(reply.ids), reply.stats.steps))
        pending.put(Finished(choice, reply, tuple(logprobs.told)))
        return reply

    def _keep(self, cache: KVCache, text: Sequence[int]) -> None:
        """Add a cache to the pool, without tokens that were accepted behind the end of a text."""
        if cache.can_roll_back:
            cache.truncate(common_prefix(cache.tokens, text))
        self.caches.add(cache)
