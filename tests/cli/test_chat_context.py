"""A chat that outgrows the context goes on, and says which turns are no longer read."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator

import chat_app
import cli_model
import pytest
from chat_app import do

from nfox import Conversation, Settings, load
from nfox.cli.chat.app import ChatApp
from nfox.cli.chat.oneshot import serve_lines
from nfox.cli.options.chat import DisplayArguments, SessionArguments
from nfox.engine import Engine
from nfox.errors import ContextError

CONTEXT = 200


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = cli_model.save(tmp_path_factory.mktemp("model"))
    return load(str(folder), method="lookup", max_context=CONTEXT)


@pytest.fixture
def app(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatApp]:
    monkeypatch.setenv("COLUMNS", "80")
    engine.use_settings(Settings(max_new_tokens=31))
    conversation = Conversation(engine, system="Be brief.", context_policy="drop")
    app = chat_app.make(conversation, width=80)
    app.in_chat = True
    yield app
    assert conversation.system == "Be brief."


def test_which_turns_are_no_longer_read_is_said_once_and_nothing_is_lost(app: ChatApp) -> None:
    questions = [f"question {number} please" for number in range(1, 13)]
    told = [do(app, question) for question in questions]
    said = [line for text in told for line in text.splitlines() if "no longer read" in line]
    numbers = [int(line.split(" no longer")[0].split()[-2]) for line in said]
    assert len(said) >= 3 and numbers == sorted(set(numbers))
    assert all("turns 1 to" in line and line.endswith(f"context {CONTEXT}") for line in said)
    assert sum("the oldest turns make room for the next" in text for text in told) >= 2
    assert [m.content for m in app.conversation.messages if m.role == "user"] == questions
    asked = app.conversation.asked
    assert asked[0].content == "Be brief." and asked[-1].content == questions[-1]


def test_one_turn_is_one(app: ChatApp) -> None:
    do(app, "hello")
    assert "turn 1 is no longer read: context 200" in do(app, "x" * 130)


def test_what_is_left_out_of_another_conversation_is_said_again(app: ChatApp) -> None:
    for _ in range(2):
        do(app, "hello")
        assert "turn 1 is no longer read" in do(app, "x" * 130)
        do(app, "/undo")
        assert "no longer read" not in do(app, "y" * 130)  # it is the same turn
        do(app, "/reset")
        assert app.conversation.left_out == 0


def test_a_reply_that_filled_the_context_goes_on_by_continue(app: ChatApp) -> None:
    do(app, "hello")
    app.engine.use_settings(Settings(max_new_tokens=999))
    told = do(app, "and then?")
    assert "the context is full" in told and "/continue goes on without the oldest turns" in told
    assert "turn 1 is no longer read" in do(app, "/continue")
    assert len(app.conversation.turns) == 4
    with pytest.raises(ContextError) as error:
        do(app, "/continue")
    assert "even without the turns before it" in error.value.hint


def test_a_message_longer_than_the_context_stands_in_the_line_again(app: ChatApp) -> None:
    do(app, "hello")
    before = list(app.conversation.messages)
    with pytest.raises(ContextError) as error:
        do(app, "x" * 300)
    assert "the context holds 200" in error.value.message
    assert "even without the turns before it" in error.value.hint
    assert app.next_input == "x" * 300 and app.conversation.messages == before


def test_by_the_policy_stop_a_full_context_refuses_and_names_the_way_out(app: ChatApp) -> None:
    app.conversation.context_policy = "stop"
    with pytest.raises(ContextError) as error:
        for _ in range(9):
            told = do(app, "question")
    assert "/undo and /reset make room" in told
    assert "--context-policy drop" in error.value.hint
    app.conversation.messages = app.conversation.messages * 2
    with pytest.raises(ContextError) as error:
        do(app, "/regen")
    assert "/undo" in error.value.hint


@pytest.mark.parametrize("policy", ["drop", "stop", None])
def test_lines_of_json_are_told_what_is_left_out(
    engine: Engine,
    policy: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine.use_settings(Settings(max_new_tokens=31))
    lines = [json.dumps({"role": "user", "content": f"question {n}"}) for n in range(9)]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    session = SessionArguments(context_policy=policy)  # type: ignore[arg-type]
    serve_lines(engine, DisplayArguments(), session)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    left_out = [event for event in events if event["event"] == "left_out"]
    refused = [event for event in events if event["event"] == "error"]
    if policy == "drop":
        assert [event["turns"] for event in left_out] == sorted({e["turns"] for e in left_out})
        assert left_out and left_out[0]["max_context"] == CONTEXT and not refused
    else:
        assert refused and refused[0]["code"] == 4 and not left_out
