"""What is served under which names, and how a request's fields become what the engine is asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel
from transformers import GenerationConfig

from nfox.errors import UsageError
from nfox.models.generation_config import sampling_of
from nfox.reply import Settings
from nfox.serve.errors import UnknownModel
from nfox.serve.jobs import Asked, Question
from nfox.serve.metrics import Metrics
from nfox.serve.schemas import (
    MOST_CHOICES,
    Asking,
    ChatCompletion,
    Completion,
    Generating,
    Prediction,
)
from nfox.serve.worker import Worker

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")
_NARROWEST = 1e-9  # top-p, which keeps the likeliest token alone, as 0 is meant to


class _Generation(BaseModel):
    """What is read of a generation config of transformers."""

    do_sample: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None


class Served:
    """A model under its names: NAME answers with the server's method, NAME:METHOD with that one.

    Args:
        name: of the model.
        worker: that answers.
        metrics: of what it answers.
        aliases: other names of the same, which are not listed.
    """

    def __init__(
        self, name: str, worker: Worker, metrics: Metrics, aliases: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.worker = worker
        self.metrics = metrics
        self.methods = {f"{name}:{method}": method for method in worker.methods}
        self._aliases = {name, "", "default", *aliases}
        self._replies = 0

    @property
    def names(self) -> list[str]:
        """All that can be asked for."""
        return [self.name, *self.methods]

    def chat(self, body: ChatCompletion, client: str) -> Asked:
        """Return what a chat completion asks.

        Raises:
            NfoxError: if that cannot be asked.
        """
        messages = tuple(turn.message() for turn in body.messages)
        top = (body.top_logprobs or 0) if body.logprobs else None
        settings = _generation(body.generation_config, self.worker.settings)
        if body.max_completion_tokens:
            body = body.model_copy(update={"max_tokens": body.max_completion_tokens})
        questions = [Question(messages)] * body.n
        return self._asked(body, questions, settings, top, client)

    def completion(self, body: Completion, client: str) -> Asked:
        """Return what a completion asks: every prompt `n` times.

        Raises:
            NfoxError: if that cannot be asked.
        """
        given = body.prompt if isinstance(body.prompt, list) else [body.prompt]
        if isinstance(given[0], int):
            given = [given]
        texts = [Question(text=p) if isinstance(p, str) else Question(ids=tuple(p)) for p in given]
        questions = [question for question in texts for _ in range(body.n)]
        return self._asked(body, questions, self.worker.settings, body.logprobs, client)

    def prediction(self, body: Prediction, client: str) -> Asked:
        """Return what a prediction asks."""
        return self._asked(body, [Question(text=body.prompt)], self.worker.settings, None, client)

    def generation(self, body: Generating, question: Question) -> Asked:
        """Return what a FastChat server asks for its clients, who are not known here.

        Args:
            body: the settings.
            question: read from the prompt.
        """
        limited = body.model_copy(update={"max_tokens": body.max_new_tokens or body.max_tokens})
        return self._asked(limited, [question], self.worker.settings, None, "")

    def _asked(
        self,
        body: Asking,
        questions: Sequence[Question],
        settings: Settings,
        top: int | None,
        client: str,
    ) -> Asked:
        if len(questions) > MOST_CHOICES:
            said = f"{len(questions)} replies in one request"
            raise UsageError(said, f"ask for {MOST_CHOICES} at most: prompts times n")
        # With a seed of its own a request draws the same whenever it comes, else nobody else's.
        first = 0 if body.seed is not None else self._replies
        self._replies += len(questions)
        numbered = tuple(replace(q, reply=first + index) for index, q in enumerate(questions))
        who = (client, body.user or "")
        return Asked(numbered, _settings(body, settings), self._method(body), top, who)

    def _method(self, body: Asking) -> str | None:
        """Return the method that a request names, by its model or by itself."""
        model = body.model or ""
        if model not in self.methods and model not in self._aliases:
            raise UnknownModel(f"there is no model {model} here", f"there are: {self._listed()}")
        named = self.methods.get(model)
        if named and body.method and body.method != named:
            raise UsageError(f"the model {model} and the method {body.method} are two methods")
        return body.method or named

    def _listed(self) -> str:
        return ", ".join(self.names)


def _settings(body: Asking, settings: Settings) -> Settings:
    """Return settings with all that a request says."""
    given: dict[str, Any] = {
        name: value for name in _SAMPLING if (value := getattr(body, name)) is not None
    }
    if "top_p" in given:
        given["top_p"] = max(given["top_p"], _NARROWEST)
    if "top_k" in given:
        given["top_k"] = max(given["top_k"], 0)  # -1 is all, elsewhere
    return replace(
        settings,
        sampling=replace(settings.sampling, **given),
        max_new_tokens=body.max_tokens or settings.max_new_tokens,
        stop=(*settings.stop, *body.stops),
    )


def _generation(text: str | None, settings: Settings) -> Settings:
    """Return settings as a generation config of transformers says, in JSON.

    Raises:
        UsageError: if it is not one.
    """
    if text is None:
        return settings
    try:
        read = _Generation.model_validate(json.loads(text))
        given = read.model_dump(exclude_none=True)
        limit = given.pop("max_new_tokens", settings.max_new_tokens)
        sampling = sampling_of(GenerationConfig(**given), seed=settings.sampling.seed)
    except (ValueError, RecursionError) as error:
        raise UsageError("generation_config is not one of transformers, in JSON") from error
    return replace(settings, sampling=sampling, max_new_tokens=limit)
