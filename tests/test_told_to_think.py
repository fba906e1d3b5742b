"""Whoever asks, in Python, at the terminal or of the server, can have a model told to think."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import chat_app
import folder
import pytest
import serving
from chat_app import do
from chat_templates import SWITCHED, TEMPLATES
from typer.testing import CliRunner

from nfox import Conversation, Message, Settings, load
from nfox.cli.app import app as command_line
from nfox.cli.chat.app import ChatApp
from nfox.cli.chat.commands import registry as commands
from nfox.engine import Engine
from nfox.errors import NfoxError, UsageError
from nfox.serve.pending_reply import Question
from nfox.serve.prompts import PromptEncoder
from nfox.text.messages import as_messages
from nfox.text.resolve import resolve

HI = [Message("user", "the fox")]


def thinker(place: Path, source: str) -> Path:
    """Save the tiny Llama with a template; return the folder."""
    shutil.copytree(folder.llama(), place)
    (place / "chat_template.jinja").write_text(source)
    return place


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose replies begin in thought where it is told to think."""
    return thinker(tmp_path_factory.mktemp("thinker") / "model", SWITCHED["laguna"][0])


@pytest.fixture
def engine(model: Path) -> Engine:
    return load(str(model), method="none", settings=Settings(max_new_tokens=12))


def prompt(engine: Engine, **options: bool) -> str:
    turns = [{"role": "user", "content": "the fox"}]
    tokenizer = engine.model.tokenizer
    return str(
        tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **options)
    )


def decoded(engine: Engine, ids: tuple[int, ...]) -> str:
    return str(engine.model.tokenizer.decode(ids))


def test_a_setting_tells_the_template(engine: Engine) -> None:
    on, off = prompt(engine, enable_thinking=True), prompt(engine, enable_thinking=False)
    assert on != off == prompt(engine)
    assert decoded(engine, engine.request(HI).prompt.ids) == off
    stream = engine.stream(HI, think="on")
    assert decoded(engine, stream.request.prompt.ids) == on
    reply = stream.read_to_end()
    assert reply.stats.thought_tokens == reply.stats.tokens > 0
    assert reply.stats.thought_seconds == pytest.approx(reply.stats.seconds)
    assert engine.answer(HI).stats.thought_tokens == 0
    engine.use_settings(engine.settings.changed(think="on"))
    assert decoded(engine, engine.encode(HI).ids) == on
    conversation = Conversation(engine)
    conversation.send("the fox").read_to_end()
    engine.use_settings(engine.settings.changed(max_new_tokens=3))
    reply = conversation.go_on().read_to_end()
    assert reply.stats.thought_tokens == reply.stats.tokens == 3


def test_another_template_is_told_too(engine: Engine) -> None:
    engine.use_settings(engine.settings.changed(think="off"))
    tokenizer = engine.model.tokenizer
    tokenizer.chat_template = SWITCHED["glm 4.5"][0]
    engine.use_template(resolve(tokenizer, None))
    assert decoded(engine, engine.encode(HI).ids).endswith("<think></think>")


def test_the_server_reads_what_its_setting_says_and_still_watches(engine: Engine) -> None:
    engine.use_settings(engine.settings.changed(think="on"))
    encoder = PromptEncoder(engine)
    question = Question(tuple(HI))
    expected = prompt(engine, enable_thinking=True)
    assert decoded(engine, encoder.encode(question).ids) == expected
    with pytest.raises(NfoxError, match="nobody waits"):
        encoder.encode(question, lambda: True)


@pytest.mark.parametrize(
    ("told", "think"),
    [
        ({"enable_thinking": True}, "on"),
        ({"enable_thinking": False}, "off"),
        ({"thinking": False}, "off"),  # by another template's name
        ({"thinking_budget": 0}, "off"),
        ({"enable_thinking": None, "preserve_thinking": True}, None),
        (None, None),
    ],
)
@pytest.mark.parametrize("own", ["on", "off"])
def test_a_request_tells_the_template_in_place_of_the_server(
    engine: Engine, told: dict[str, Any] | None, think: str | None, own: str
) -> None:
    engine.use_settings(engine.settings.changed(think=own))
    served = serving.serve(engine)
    body = {"messages": serving.QUESTION, "chat_template_kwargs": told}
    with serving.client(served) as http:
        answer = http.post("/v1/chat/completions", json=body).json()
    expected = engine.encode(
        as_messages(serving.QUESTION), "on" if (think or own) == "on" else "off"
    )
    usage, thinks = answer["usage"], (think or own) == "on"
    assert usage["prompt_tokens"] == len(expected.ids)
    assert expected.thinking is thinks
    # The tiny model never ends a thought that the prompt has begun.
    thought = usage["completion_tokens"] if thinks else 0
    assert usage["completion_tokens_details"] == {"reasoning_tokens": thought}


def test_a_request_may_tell_a_template_that_has_no_switch() -> None:
    body = {"messages": serving.QUESTION}
    with serving.client(serving.serve()) as http:
        answers = [
            http.post("/v1/chat/completions", json=body | more).json()["choices"][0]["message"]
            for more in ({}, {"chat_template_kwargs": {"enable_thinking": False, "a": [1]}})
        ]
        wrong = http.post("/v1/chat/completions", json=body | {"chat_template_kwargs": "no"})
    assert answers[0] == answers[1]
    assert wrong.status_code == 400


@pytest.fixture
def app(engine: Engine) -> ChatApp:
    return chat_app.make(engine)


def test_the_chat_tells_and_counts(app: ChatApp) -> None:
    assert "thinking is as the template has it (enable_thinking)" in do(app, "/think")
    assert "thought" not in do(app, "the fox")
    assert "thinking is on" in do(app, "/think on")
    assert "thought 12 tok, " in do(app, "the fox")
    do(app, "/fold on")
    told = do(app, "the fox")
    assert "characters of thinking hidden" in told and "thought 12 tok" in told
    assert "thinking is off" in do(app, "/think off")
    assert "thought" not in do(app, "the fox")
    with pytest.raises(UsageError, match="expected auto, on, off"):
        do(app, "/think hard")
    assert set(commands.complete(app, "/think o")) == {"on", "off"}


def test_a_template_without_a_switch_is_named(app: ChatApp) -> None:
    engine = app.engine
    engine.use_template(resolve(engine.model.tokenizer, "vicuna_v1.1"))
    with pytest.raises(UsageError, match=r"vicuna_v1.1 has no switch for thinking") as refused:
        do(app, "/think off")
    assert "/fold on" in refused.value.hint
    assert do(app, "/think") == "the template vicuna_v1.1 has no switch for thinking\n"
    hint = "the template vicuna_v1.1 has no switch for thinking"
    assert hint in do(app, "/params")
    for think, told in (("auto", False), ("off", True)):
        engine.use_settings(engine.settings.changed(think=think))
        assert (hint in do(app, "/template vicuna_v1.1")) is told


def run(*arguments: object) -> Any:
    return CliRunner().invoke(command_line, [*map(str, arguments)], env={"COLUMNS": "200"})


def test_the_option_tells_one_prompt_and_is_said_to_do_nothing_where_it_cannot(
    model: Path, tmp_path: Path
) -> None:
    asked = ("-p", "the fox", "-M", 6, "--json", "--method", "none")
    for think, thought in (("on", 6), ("off", 0)):
        done = run("-m", model, *asked, "--think", think)
        assert done.exit_code == 0 and "not used" not in done.stderr
        end = json.loads(done.stdout.splitlines()[-1])
        assert end["usage"]["completion_tokens_details"] == {"reasoning_tokens": thought}
    plain = thinker(tmp_path / "plain", TEMPLATES["chatml"])
    done = run("-m", plain, *asked, "--think", "off")
    reason = "the model's own template (tokenizer) has no switch for thinking"
    line = f"nfox: not used: --think ({reason})"
    assert done.exit_code == 0 and line in done.stderr
