"""Tools in requests: they are answered by text, and what others did with them is rendered."""

from __future__ import annotations

import json
from typing import Any

import folder
import pytest
from chat_templates import OF_TOOLS
from serving import QUESTION, chunks, client, load_tiny, serve
from starlette.testclient import TestClient

from nfox.engine import Engine
from nfox.serve.prompts import ReplyTokens
from nfox.serve.turns import Turn
from nfox.text.messages import Message
from nfox.text.resolve import resolve

CHAT = "/v1/chat/completions"
FUNCTION = {"name": "count", "description": "Counts.", "parameters": {"type": "object"}}
TOOLS = [{"type": "function", "function": FUNCTION}]
CALL = {"id": "abcdef123", "type": "function", "function": {"name": "count", "arguments": "{}"}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ANSWERED = {"role": "tool", "content": "5", "tool_call_id": "abcdef123"}
HISTORY = [*QUESTION, CALLED, ANSWERED]


@pytest.fixture(scope="module")
def http() -> TestClient:
    return client(serve())


def engine_with_tools() -> Engine:
    """Return a model whose template writes calls of tools."""
    engine = load_tiny()
    engine.model.tokenizer.chat_template = OF_TOOLS["qwen 2.5"]
    engine.use_template(resolve(engine.model.tokenizer, None))
    return engine


def test_tools_are_answered_by_the_text_that_there_is_without_them(http: TestClient) -> None:
    """In everything that agents and editors send with them."""
    plain = http.post(CHAT, json={"messages": QUESTION}).json()["choices"][0]
    assert plain["finish_reason"] in ("stop", "length") and plain["message"]["content"]
    sent: list[dict[str, Any]] = [
        {"tools": TOOLS},
        {"tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": True},
        {"tools": TOOLS, "tool_choice": "none", "parallel_tool_calls": None},
        {"tools": [], "functions": [FUNCTION], "function_call": "auto"},
    ]
    for fields in sent:
        whole = http.post(CHAT, json={"messages": QUESTION, **fields}).json()["choices"][0]
        assert whole == plain
        streamed = http.post(CHAT, json={"messages": QUESTION, "stream": True, **fields})
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks(streamed.text)]
        assert all("tool_calls" not in delta for delta in deltas)
        assert "".join(d.get("content", "") for d in deltas) == plain["message"]["content"]


@pytest.mark.parametrize(
    "field",
    [
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "count"}}},
        {"function_call": {"name": "count"}},
    ],
)
def test_a_call_that_must_be_made_is_refused(http: TestClient, field: dict[str, Any]) -> None:
    answer = http.post(CHAT, json={"messages": QUESTION, "tools": TOOLS, **field})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == next(iter(field))
    assert error["message"].startswith("no reply calls a tool here")


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ({"role": "tool"}, "messages.1.content: Field required"),
        ({"role": "user", "content": "x", "tool_calls": [CALL]}, "only an assistant's message"),
        ({"role": "assistant", "tool_calls": [{"id": "x"}]}, "tool_calls.0.function: Field req"),
        ({"role": "assistant", "tool_calls": [CALL] * 513}, "at most 512"),
        ({"role": "assistant", "function_call": {"name": "x"}}, "send it as tool_calls"),
        (CALLED, "the last message calls a tool"),
    ],
)
def test_mistakes_are_told(http: TestClient, turn: dict[str, Any], message: str) -> None:
    answer = http.post(CHAT, json={"messages": [*QUESTION, turn]})
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_a_history_with_tools_is_what_the_template_makes_of_it() -> None:
    engine = engine_with_tools()
    http = client(serve(engine))
    tokenizer = engine.model.tokenizer
    messages: list[dict[str, Any]] = list(HISTORY)
    for answer in ("5", "another"):  # the last reply is known by its tokens, whatever was called
        turns = json.loads(json.dumps(messages).replace('"{}"', "{}").replace("null", '""'))
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        expected = len(tokenizer(text, add_special_tokens=False).input_ids)
        answered = http.post(CHAT, json={"messages": messages, "tools": TOOLS, "max_tokens": 4})
        assert answered.status_code == 200, answered.text
        assert answered.json()["usage"]["prompt_tokens"] == expected
        messages += [CALLED, {**ANSWERED, "content": answer}]


def test_replies_are_told_apart_by_what_was_called_before_them() -> None:
    replies, said = ReplyTokens(), Message("assistant", "five", (1, 2))
    others = json.loads(json.dumps(HISTORY).replace("count", "sum"))
    known, unknown = (
        [Turn.model_validate(turn).to_message() for turn in h] for h in (HISTORY, others)
    )
    replies.remember([*known, said])
    text = Message("assistant", "five")
    assert [message.ids for message in replies.recall([*known, text])] == [None] * 3 + [(1, 2)]
    assert [message.ids for message in replies.recall([*unknown, text])] == [None] * 4


def test_an_encoder_decoder_model_reads_no_tools() -> None:
    http = client(serve(load_tiny(folder.t5())))
    answer = http.post(CHAT, json={"messages": HISTORY})
    assert answer.status_code == 400
    assert "reads the last question alone" in answer.json()["error"]["message"]


def test_a_template_without_a_place_for_tools_is_named(http: TestClient) -> None:
    answer = http.post(CHAT, json={"messages": HISTORY, "tools": TOOLS})
    assert answer.status_code == 400
    expected = "conversation template tokenizer: it has no place for the call of a tool (`nfox"
    assert answer.json()["error"]["message"].startswith(expected)
