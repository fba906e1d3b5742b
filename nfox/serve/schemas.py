"""What requests may say: OpenAI's fields, a few of other servers, and `method`, which is ours.

What would change the answer and is not there is refused, not ignored; unknown fields are ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from nfox.text.messages import Message

MOST_CHOICES = 16
"""Replies to one request, at most."""

MOST_TURNS = 512
"""Messages of a conversation, at most: rendering takes time with the square of them."""

_HARMLESS: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
    "tools": (None, []),
    "functions": (None, []),
    "tool_choice": (None, "none", "auto"),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "echo": (None, False),
    "suffix": (None, ""),
    "best_of": (None, 1),
}
"""Fields that are not there, and the values that ask for nothing."""

Text = Annotated[str, StringConstraints(max_length=1 << 24)]
Short = Annotated[str, StringConstraints(max_length=1024)]
Token = Annotated[int, Field(ge=0, lt=1 << 31)]
Tokens = Annotated[list[Token], Field(min_length=1, fail_fast=True)]
Unit = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class StreamOptions(BaseModel):
    """Of a stream: whether its last chunk tells the usage."""

    include_usage: bool | None = None


class Asking(BaseModel):
    """What all requests have in common. None: as the server was started."""

    model_config = ConfigDict(protected_namespaces=())

    model: Short | None = None
    method: Short | None = Field(None, description="What drafts; the same as a model NAME:METHOD.")
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: Unit | None = None
    top_k: int | None = Field(None, ge=-1, lt=1 << 31)
    min_p: Unit | None = None
    repetition_penalty: float | None = Field(None, ge=0.01, le=100, allow_inf_nan=False)
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    max_tokens: int | None = Field(None, ge=1, lt=1 << 31)
    stop: Short | Annotated[list[Short], Field(max_length=16)] | None = None
    user: Short | None = Field(None, description="Waits in a line of its own.")

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, data: Any) -> Any:
        """Refuse what would be ignored though it was meant; null is as if it were left out."""
        if not isinstance(data, dict):
            return data
        for name, values in _HARMLESS.items():
            if data.get(name) not in values:
                raise ValueError(f"not supported here: {name}; leave it out")
        return {name: value for name, value in data.items() if value is not None}

    @property
    def stops(self) -> tuple[str, ...]:
        """The strings that end a reply."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class Completing(Asking):
    """What both kinds of completions have in common."""

    n: int = Field(1, ge=1, le=MOST_CHOICES)
    stream: bool = False
    stream_options: StreamOptions | None = None

    @property
    def tells_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class Part(BaseModel):
    """A part of a message; only text is read."""

    type: Literal["text"]
    text: Text


class Turn(BaseModel):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[Part], Field(max_length=MOST_TURNS, fail_fast=True)]

    @field_validator("content", mode="before")
    @classmethod
    def _refuse(cls, content: Any) -> Any:
        """Name what cannot be read; pydantic would name all that was tried."""
        if not isinstance(content, str | list):
            raise ValueError("expected a text, or a list of parts that are text")
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else part
            if kind != "text":
                raise ValueError(f"not supported here: {kind!r:.40}; only parts of type text are")
        return content

    def message(self) -> Message:
        """Return it as the chat takes it."""
        said = self.content
        text = said if isinstance(said, str) else "\n".join(part.text for part in said)
        return Message("system" if self.role == "developer" else self.role, text)


class ChatCompletion(Completing):
    """A body of /v1/chat/completions."""

    messages: list[Turn] = Field(min_length=1, max_length=MOST_TURNS, fail_fast=True)
    max_completion_tokens: int | None = Field(None, ge=1, lt=1 << 31)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    generation_config: Text | None = Field(
        None, description="JSON, as `transformers chat` sends it; what is said beside it wins."
    )


class Completion(Completing):
    """A body of /v1/completions."""

    prompt: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MOST_CHOICES, fail_fast=True)]
        | Tokens
        | Annotated[list[Tokens], Field(min_length=1, max_length=MOST_CHOICES, fail_fast=True)]
    )
    logprobs: int | None = Field(None, ge=0, le=20)


class Prediction(Asking):
    """A body of /predict: the sampling is that of LLMSpeculativeSampling's server."""

    prompt: Text
    temperature: float | None = Field(1.0, ge=0, le=2, allow_inf_nan=False)
    top_k: int | None = Field(10, ge=-1, lt=1 << 31)
    top_p: Unit | None = 0.9
    max_tokens: int | None = Field(40, ge=1, lt=1 << 31)


class Generating(Asking):
    """A body of FastChat's /worker_generate and /worker_generate_stream."""

    prompt: Text
    max_new_tokens: int | None = Field(None, ge=1, lt=1 << 31)


class ModelName(BaseModel):
    """A body of /load_model."""

    model: Short
