"""The bodies of requests: OpenAI's fields, a few of other servers, and nfox's own `method`.

A field that would change the answer and is not supported is refused; unknown fields are ignored.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from nfox.serve.fields import (
    MAX_CHOICES,
    NO_SEED,
    Probability,
    Prompts,
    ShortText,
    Stop,
    Text,
    TokenLimit,
)
from nfox.serve.turns import MAX_MESSAGES, Turn

_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
    "tool_choice": (None, "none", "auto"),
    "function_call": (None, "none", "auto"),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "echo": (None, False),
    "suffix": (None, ""),
    "best_of": (None, 1),
}
"""The fields that are not supported, each with the values that ask for nothing."""

_NO_CALLS = dict.fromkeys(
    ("tool_choice", "function_call"),
    "no reply calls a tool here, so {parameter} cannot ask for it; leave it out, or send auto",
)
"""What is said instead of a reply that has to call a tool."""


class StreamOptions(BaseModel):
    """Options of a stream: whether its last chunk has the usage."""

    include_usage: bool | None = None


class RequestBody(BaseModel):
    """The fields that all requests have. None stands for the server's own setting."""

    model_config = ConfigDict(protected_namespaces=())

    model: ShortText | None = None
    method: ShortText | None = Field(
        None, description="What drafts; the same as a model NAME:METHOD."
    )
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: Probability | None = None
    top_k: int | None = Field(None, ge=-1, lt=1 << 31)
    min_p: Probability | None = None
    repetition_penalty: float | None = Field(None, ge=0.01, le=100, allow_inf_nan=False)
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    max_tokens: TokenLimit | None = Field(None, description="-1: as many as there is room for.")
    stop: Stop | None = None
    user: ShortText | None = Field(None, description="Waits in a line of its own.")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, data: Any) -> Any:
        """Refuse what would be ignored though it was meant; null is as if it were left out."""
        if not isinstance(data, dict):
            return data
        for name, harmless in _UNSUPPORTED.items():
            if data.get(name) not in harmless:
                message = _NO_CALLS.get(name, "not supported here: {parameter}; leave it out")
                raise PydanticCustomError("unsupported", message, {"parameter": name})
        return {name: value for name, value in data.items() if value is not None}

    @field_validator(
        *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "max_tokens"),
        mode="before",
    )
    @classmethod
    def _no_truth_value(cls, value: Any) -> Any:
        """Refuse true and false, which are 1 and 0 to pydantic."""
        if isinstance(value, bool):
            raise PydanticCustomError("number", "expected a number, not true or false")
        return value

    @field_validator("seed")
    @classmethod
    def _none_for_any(cls, seed: int | None) -> int | None:
        """Return the seed, or None where another one is wanted each time."""
        return None if seed == NO_SEED else seed

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The strings that end a reply."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class CompletionBody(RequestBody):
    """The fields that both kinds of completions have."""

    n: int = Field(1, ge=1, le=MAX_CHOICES)
    stream: bool = False
    stream_options: StreamOptions | None = None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk that has the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


_MAX_PARTS = 16 * MAX_MESSAGES  # of all messages: checking them takes the time of everybody
_LISTS_OF_TURNS = ("content", "tool_calls")


class ChatCompletion(CompletionBody):
    """The body of a request to /v1/chat/completions."""

    messages: list[Turn] = Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)
    max_completion_tokens: TokenLimit | None = None
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="Whether to think, such as enable_thinking: false; all else is ignored."
    )
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[Any] | None = Field(None, description="No reply calls one: the answer is a text.")
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    generation_config: Text | None = Field(
        None, description="JSON, as `transformers chat` sends it; what is said beside it wins."
    )

    @field_validator("messages", mode="before")
    @classmethod
    def _refuse_many_parts(cls, messages: Any) -> Any:
        """Refuse more parts than a conversation needs, before each is looked at."""
        turns = messages if isinstance(messages, list) else ()
        lists = [
            turn.get(name) for turn in turns if isinstance(turn, dict) for name in _LISTS_OF_TURNS
        ]
        if sum(len(parts) for parts in lists if isinstance(parts, list)) > _MAX_PARTS:
            raise ValueError(f"a conversation may have {_MAX_PARTS} parts")
        return messages


class Completion(CompletionBody):
    """The body of a request to /v1/completions."""

    prompt: Prompts
    logprobs: int | None = Field(None, ge=0, le=20)

    @field_validator("logprobs", mode="before")
    @classmethod
    def _none_for_false(cls, logprobs: Any) -> Any:
        """Return the number, None for the false of chat completions: 0 asks for some."""
        return None if logprobs is False else logprobs


class Prediction(RequestBody):
    """The body of a request to /predict, with the sampling of LLMSpeculativeSampling's server."""

    prompt: Text
    temperature: float | None = Field(1.0, ge=0, le=2, allow_inf_nan=False)
    top_k: int | None = Field(10, ge=-1, lt=1 << 31)
    top_p: Probability | None = 0.9
    max_tokens: TokenLimit | None = 40


class WorkerGenerateBody(RequestBody):
    """The body of a request to FastChat's /worker_generate and /worker_generate_stream."""

    prompt: Text
    max_new_tokens: TokenLimit | None = None


class ModelName(BaseModel):
    """The body of a request to /load_model."""

    model: ShortText
