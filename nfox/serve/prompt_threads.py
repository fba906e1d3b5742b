"""Threads that make prompts of what waits in the queue, so that a long one holds nobody up."""

from __future__ import annotations

import logging
import threading
import time

from nfox.decoding.generate import Prompt
from nfox.errors import NfoxError
from nfox.serve.errors import DeadlineExceeded
from nfox.serve.fair_queue import FairQueue
from nfox.serve.pending_reply import PendingReply, Question
from nfox.serve.prompts import PromptEncoder

log = logging.getLogger(__name__)

_COUNT = 4  # the number of threads, of which one takes short prompts only
_SHORT = 1 << 16  # characters or token ids


class PromptThreads:
    """Renders and tokenises the questions of requests while they wait for the model.

    Args:
        queue: the requests that wait.
        encoder: makes prompts of questions.
        max_context: the number of positions there are.
        vocabulary_size: the number of tokens that the target knows.
    """

    def __init__(
        self,
        queue: FairQueue[PendingReply],
        encoder: PromptEncoder,
        max_context: int,
        vocabulary_size: int,
    ) -> None:
        self._queue = queue
        self._encoder = encoder
        self._max_context = max_context
        self._vocabulary_size = vocabulary_size
        self._threads = [
            threading.Thread(target=self._run, args=[most], name="nfox prompts", daemon=True)
            for most in (_SHORT, *[None] * (_COUNT - 1))
        ]
        for thread in self._threads:
            thread.start()

    def join(self, seconds: float) -> None:
        """Wait until the threads have ended after the queue was closed, for so many seconds at
        most.
        """
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _run(self, most: int | None) -> None:
        """Make prompts until the queue is closed, `most` characters long if that is not None."""

        def suitable(pending: PendingReply) -> bool:
            return most is None or pending.request.size <= most

        while (pending := self._queue.claim(suitable)) is not None:
            try:
                pending.prompts = self._prompts(pending)
            except NfoxError as error:
                pending.fail(error)
            except Exception as error:
                log.exception("a prompt failed")
                pending.fail(error)
            finally:
                self._queue.release(pending)

    def _prompts(self, pending: PendingReply) -> dict[Question, Prompt]:
        """Return the prompts of a request's questions.

        All of them before the first is answered: what is wrong with the last is told at once. Many
        replies may answer one question, which is rendered and tokenised once.

        Raises:
            ContextError: if one does not fit into the context.
            UsageError: if one is empty, or has tokens that the model does not know.
            DeadlineExceeded: if the request was given up meanwhile, or its time has passed.
        """
        prompts: dict[Question, Prompt] = {}
        for question in dict.fromkeys(pending.request.questions):
            try:
                prompt = self._encoder.encode(question, pending.abandoned)
            except NfoxError:
                if pending.abandoned():  # whatever became of the template then
                    raise DeadlineExceeded(
                        "its time passed before its prompt was read", "try again later"
                    ) from None
                raise
            prompt.check(self._max_context, self._vocabulary_size)
            prompts[question] = prompt
        return prompts
