"""The names that a model is served under, and what the fields of a request's body ask of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, get_type_hints

from pydantic import create_model
from transformers import GenerationConfig

from nfox.decoding.sampling import Sampling
from nfox.models.generation_config import sampling_of
from nfox.reply import Settings
from nfox.serve.errors import UnknownModel, WrongParameter
from nfox.serve.fields import MAX_CHOICES, NO_LIMIT
from nfox.serve.metrics import Metrics
from nfox.serve.pending_reply import Question, ServeRequest
from nfox.serve.schemas import (
    ChatCompletion,
    Completion,
    Prediction,
    RequestBody,
    WorkerGenerateBody,
)
from nfox.serve.worker import Worker
from nfox.text.thinking import think_of

_MIN_TOP_P = 1e-9  # keeps the likeliest token alone, as a top-p of 0 is meant to

# What is read of a generation config of transformers: it has no seed, other fields are ignored.
_GENERATION_FIELDS: dict[str, Any] = {
    name: (kind | None, None) for name, kind in get_type_hints(Sampling).items() if name != "seed"
} | {"do_sample": (bool, False), "max_new_tokens": (int | None, None)}
_GenerationFields = create_model("_GenerationFields", **_GENERATION_FIELDS)


class ServedModel:
    """A model under its names: NAME answers with the server's method, NAME:METHOD with that one.

    Args:
        name: the name that clients call the model.
        worker: the worker that answers.
        metrics: the counters of what it answers.
        aliases: other names of the model, which are not listed.
    """

    def __init__(
        self, name: str, worker: Worker, metrics: Metrics, aliases: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.worker = worker
        self.metrics = metrics
        self._methods = {f"{name}:{method}": method for method in worker.methods}
        self._aliases = {name, "", "default", *aliases}
        self._reply_count = 0

    @property
    def names(self) -> list[str]:
        """All names that are listed: the model's, and one with each method."""
        return [self.name, *self._methods]

    def check(self, name: str) -> None:
        """Refuse a name that is neither listed nor one of the aliases.

        Raises:
            UnknownModel: if there is no model of that name.
        """
        if name not in self._methods and name not in self._aliases:
            names = ", ".join(self.names)
            raise UnknownModel(f"there is no model {name} here", f"there are: {names}")

    def method_of(self, name: str) -> str:
        """Return the method that answers under one of the names or aliases."""
        return self._methods.get(name, self.worker.engine.method)

    def chat_request(self, body: ChatCompletion, client: str) -> ServeRequest:
        """Return the request of a chat completion.

        Args:
            body: the fields of the request.
            client: the address that asks.

        Raises:
            UnknownModel: if there is no model of that name.
            UsageError: if the fields do not fit together.
        """
        messages = [message.to_message() for message in body.messages]
        if messages[-1].tool_fields and messages[-1].role == "assistant":
            message = "the last message calls a tool"
            raise WrongParameter("messages", message, "send what the tool answered behind it")
        if len(messages) > 1 and (messages[-1].role, messages[-1].content) == ("assistant", ""):
            messages.pop()  # nothing to go on with: a place for the reply
        told = think_of(body.chat_template_kwargs or {})
        question = Question(tuple(messages), think=None if told == "auto" else told)
        top_logprobs = (body.top_logprobs or 0) if body.logprobs else None
        defaults = _with_generation_config(self.worker.engine.settings, body.generation_config)
        if body.max_completion_tokens:
            body = body.model_copy(update={"max_tokens": body.max_completion_tokens})
        return self._request(body, [question] * body.n, client, defaults, top_logprobs)

    def completion_request(self, body: Completion, client: str) -> ServeRequest:
        """Return the request of a text completion, which answers every prompt `n` times.

        Args:
            body: the fields of the request.
            client: the address that asks.

        Raises:
            UnknownModel: if there is no model of that name.
            UsageError: if the fields do not fit together, or too many replies are asked for.
        """
        prompts: list[Any] = body.prompt if isinstance(body.prompt, list) else [body.prompt]
        if isinstance(prompts[0], int):
            prompts = [prompts]
        questions = [
            Question(text=prompt) if isinstance(prompt, str) else Question(ids=tuple(prompt))
            for prompt in prompts
            for _ in range(body.n)
        ]
        return self._request(body, questions, client, top_logprobs=body.logprobs)

    def prediction_request(self, body: Prediction, client: str) -> ServeRequest:
        """Return the request of a prediction, which continues one text.

        Args:
            body: the fields of the request.
            client: the address that asks.

        Raises:
            UnknownModel: if there is no model of that name.
            UsageError: if the fields do not fit together.
        """
        return self._request(body, [Question(text=body.prompt)], client)

    def worker_request(self, body: WorkerGenerateBody, question: Question) -> ServeRequest:
        """Return the request that a FastChat server passes on for a client that it does not name.

        Args:
            body: the fields of the request.
            question: what the body's prompt says.

        Raises:
            UnknownModel: if there is no model of that name.
            UsageError: if the fields do not fit together.
        """
        limited = body.model_copy(update={"max_tokens": body.max_new_tokens or body.max_tokens})
        return self._request(limited, [question], "")

    def _request(
        self,
        body: RequestBody,
        questions: Sequence[Question],
        client: str,
        defaults: Settings | None = None,
        top_logprobs: int | None = None,
    ) -> ServeRequest:
        if len(questions) > MAX_CHOICES:
            message = f"{len(questions)} replies in one request"
            raise WrongParameter("n", message, f"ask for {MAX_CHOICES} at most: prompts times n")
        method, engine = self._method(body), self.worker.engine
        if body.max_tokens == NO_LIMIT:
            body = body.model_copy(update={"max_tokens": engine.max_context})
        settings = _with_body(defaults or engine.settings, body)
        # A request with a seed of its own draws the same noise whenever it comes. Others draw noise
        # that no other reply had.
        first_number = 0 if body.seed is not None else self._reply_count
        self._reply_count += len(questions)
        return ServeRequest(
            tuple(questions),
            settings,
            first_number,
            method,
            top_logprobs,
            (client, body.user or ""),
        )

    def _method(self, body: RequestBody) -> str | None:
        """Return the method that a request names, by its model or by its `method`."""
        model = body.model or ""
        self.check(model)
        method = self._methods.get(model)
        if method and body.method and body.method != method:
            message = f"the model {model} and the method {body.method} are two methods"
            raise WrongParameter("method", message)
        return body.method or method


def _with_body(defaults: Settings, body: RequestBody) -> Settings:
    """Return the settings with what a request's body says in their place."""
    sampling = {
        field.name: value
        for field in fields(Sampling)
        if (value := getattr(body, field.name)) is not None
    }
    if "top_p" in sampling:
        sampling["top_p"] = max(sampling["top_p"], _MIN_TOP_P)
    if "top_k" in sampling:
        sampling["top_k"] = max(sampling["top_k"], 0)  # -1 stands for all tokens in other servers
    return replace(
        defaults,
        sampling=replace(defaults.sampling, **sampling),
        max_new_tokens=body.max_tokens or defaults.max_new_tokens,
        stop=(*defaults.stop, *body.stop_strings),
    )


def _with_generation_config(defaults: Settings, text: str | None) -> Settings:
    """Return the settings with what a generation config of transformers says in their place.

    Args:
        defaults: the settings.
        text: the config as JSON, or None.

    Raises:
        UsageError: if it is not a generation config.
    """
    if text is None:
        return defaults
    try:
        config = _GenerationFields.model_validate(json.loads(text)).model_dump(exclude_none=True)
        limit = config.pop("max_new_tokens", defaults.max_new_tokens)
        sampling = sampling_of(GenerationConfig(**config), seed=defaults.sampling.seed)
    except (ValueError, RecursionError) as error:
        message = "generation_config is not one of transformers, in JSON"
        raise WrongParameter("generation_config", message) from error
    return replace(defaults, sampling=sampling, max_new_tokens=limit)
