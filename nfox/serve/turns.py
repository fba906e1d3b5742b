"""The messages in the body of a request, with what others called tools for and got from them."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, Tag, model_validator

from nfox.serve.fields import ShortText, Text, text_or_list, union_of
from nfox.text.messages import ROLES, Message, content_text

MAX_MESSAGES = 512
"""The largest number of messages in a conversation: rendering takes time with its square."""


class Part(BaseModel):
    """A part of a message; only text is supported."""

    type: Literal["text"]
    text: Text

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, part: Any) -> Any:
        content_text([part])
        return part


Parts = Annotated[list[Part], Field(max_length=MAX_MESSAGES, fail_fast=True)]


class CalledFunction(BaseModel):
    """The function that a reply calls, its arguments as JSON."""

    name: ShortText
    arguments: Text = ""

    def as_rendered(self) -> dict[str, Any]:
        """Return the function as templates read it: the arguments as an object if they are one."""
        arguments: Any = None
        with suppress(ValueError, RecursionError):
            arguments = json.loads(self.arguments or "{}")
        # What is no object is as a model wrote it; the template may take a text.
        is_object = isinstance(arguments, dict)
        return {"name": self.name, "arguments": arguments if is_object else self.arguments}


class ToolCall(BaseModel):
    """A call of a tool in a reply."""

    type: Literal["function"] = "function"
    id: ShortText = ""
    function: CalledFunction

    def as_rendered(self) -> dict[str, Any]:
        """Return the call as templates read it."""
        return {"type": self.type, "id": self.id, "function": self.function.as_rendered()}


class Turn(BaseModel):
    """A message of a conversation; a template that cannot write calls of tools refuses them."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[
        Annotated[Text, Tag("(text)")] | Annotated[Parts, Tag("(list)")],
        union_of("a text, or a list of parts that are text", text_or_list),
    ]
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_MESSAGES, fail_fast=True)] = []
    tool_call_id: ShortText | None = None
    name: ShortText | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_null(cls, data: Any) -> Any:
        """Take null as left out; as the content of an assistant it is an empty reply."""
        if not isinstance(data, dict):
            return data
        if data.get("function_call"):
            raise ValueError("not supported here: function_call; send it as tool_calls")
        said = {name: data[name] for name in data if name == "content" or data[name] is not None}
        is_reply = said.get("role") == "assistant"
        if not is_reply and said.get("tool_calls"):
            raise ValueError("only an assistant's message has tool_calls")
        empty = is_reply and said.get("content") is None
        return {**said, "content": ""} if empty else said

    def to_message(self) -> Message:
        """Return the message that templates render: its parts joined, a developer as the system."""
        fields: dict[str, Any] = {}
        if self.tool_calls:
            fields["tool_calls"] = [call.as_rendered() for call in self.tool_calls]
        if self.role == "tool":
            known = {"tool_call_id": self.tool_call_id, "name": self.name}
            fields |= {name: value for name, value in known.items() if value is not None}
        return Message(
            ROLES.get(self.role, self.role),
            content_text(self.model_dump(include={"content"})["content"]),
            tool_fields=json.dumps(fields) if fields else "",
        )
