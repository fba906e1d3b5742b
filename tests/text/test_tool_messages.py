"""What others called tools for stands in the prompt as the template writes it, or is refused."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from chat_templates import OF_TOOLS, TEMPLATES
from test_rendering import applied_turns, tokenizer_of

from nfox.errors import NfoxError
from nfox.serve.turns import Turn
from nfox.text.messages import Message
from nfox.text.resolve import available, resolve

IDS = "abcdef123", "abcdef456"
ANSWER = {"role": "tool", "content": '{"fox": 5}\n', "tool_call_id": IDS[0], "name": "count"}


def call(identifier: str = IDS[0], arguments: str = '{"of": "föx"}') -> dict[str, Any]:
    function = {"name": "count", "arguments": arguments}
    return {"id": identifier, "type": "function", "function": function}


def calls(*called: dict[str, Any], content: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(called or (call(),))}


def user(content: str = "hi") -> dict[str, Any]:
    return {"role": "user", "content": content}


CONVERSATIONS = {
    "answered": [user(), calls(), ANSWER],
    "gone on with": [
        *(user(), calls(), ANSWER, {"role": "assistant", "content": "5"}),
        *(user("sure?"), calls(content="so"), ANSWER),
    ],
    "several calls": [user(), calls(call(), call(IDS[1])), ANSWER, {**ANSWER, "content": ""}],
    "called again": [user(), calls(), ANSWER, calls(call(IDS[1], "")), ANSWER],
    "arguments that are no JSON": [user(), calls(call(arguments="{of: ")), ANSWER],
}


def messages(turns: list[dict[str, Any]]) -> list[Message]:
    return [Turn.model_validate(turn).to_message() for turn in turns]


def as_templates_read(turn: dict[str, Any]) -> dict[str, Any]:
    """Return a turn with the arguments of its calls as an object, as transformers documents it."""
    turn = json.loads(json.dumps(turn))
    for called in turn.get("tool_calls", ()):
        with suppress(ValueError):
            called["function"]["arguments"] = json.loads(called["function"]["arguments"] or "{}")
    return {**turn, "content": turn["content"] or ""}


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", OF_TOOLS)
def test_the_prompt_is_what_transformers_writes(name: str, conversation: str) -> None:
    turns = CONVERSATIONS[conversation]
    tokenizer = tokenizer_of(OF_TOOLS[name])
    template = resolve(tokenizer, None)
    if name == "llama 3.1" and conversation == "several calls":
        with pytest.raises(NfoxError, match="only supports single tool-calls"):
            template.text(messages(turns))
        return
    expected = applied_turns(tokenizer, [as_templates_read(turn) for turn in turns])
    assert template.text(messages(turns)) == expected
    ids = tokenizer(expected, add_special_tokens=False).input_ids
    assert template.encode(tokenizer, messages(turns)) == ids


def test_what_a_template_asks_of_calls_is_said() -> None:
    template = resolve(tokenizer_of(OF_TOOLS["mistral nemo"]), None)
    with pytest.raises(NfoxError, match="Tool call IDs should be"):
        template.text(messages([user(), calls(call("call_1")), ANSWER]))


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_without_a_place_for_calls_refuses_them(name: str) -> None:
    template = resolve(tokenizer_of(TEMPLATES[name]), None)
    with pytest.raises(NfoxError, match="conversation template tokenizer: "):
        template.text(messages(CONVERSATIONS["answered"]))
    assert template.text([Message("user", "hi")])


def test_a_template_that_loses_one_of_several_is_found_out() -> None:
    """Though what is lost stands in the text by chance."""
    source = (
        "{% for m in messages %}{% if m.tool_calls %}{% for call in m.tool_calls %}"
        "{{ call.function.name if CALL }}{% endfor %}{% elif m.role == 'tool' %}"
        "{{ m.content if ANSWER }}{% else %}{{ m.content }}{% endif %};{% endfor %}"
    )
    turns = [user("count 0"), calls(call(), call(IDS[1])), {**ANSWER, "content": "0"}]
    whole = source.replace("CALL", "true").replace("ANSWER", "true")
    assert resolve(tokenizer_of(whole), None).text(messages(turns)) == "count 0;countcount;0;"
    for part, condition in (("CALL", "loop.first"), ("ANSWER", "m.name == 'x'")):
        broken = source.replace(part, condition).replace("CALL", "true").replace("ANSWER", "true")
        with pytest.raises(NfoxError, match="it has no place for"):
            resolve(tokenizer_of(broken), None).text(messages(turns))


@pytest.mark.parametrize("name", ["vicuna_v1.1", "chatml", "one_shot"])
def test_templates_of_fastchat_have_no_place_for_tools(name: str) -> None:
    assert name in available()
    template = resolve(tokenizer_of(None), name)
    with pytest.raises(NfoxError, match=r"no place for|no tools"):
        template.text(messages(CONVERSATIONS["answered"]))
