"""Looking at a conversation: its turns, its tokens, its settings."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import chat_app
import cli_model
import folder
import pytest
from chat_app import contents, do
from rich.cells import cell_len

from nfox import Message, Settings, load
from nfox.cli.chat.app import ChatApp
from nfox.cli.chat.commands import registry
from nfox.cli.chat.context_use import ContextUse, measure
from nfox.cli.display.context_bar import context_bar
from nfox.cli.display.theme import ASCII, Symbols
from nfox.controls import sanitize
from nfox.engine import Engine
from nfox.errors import UsageError


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return load(str(cli_model.save(tmp_path_factory.mktemp("model"))))


@pytest.fixture
def app(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> ChatApp:
    monkeypatch.setenv("COLUMNS", "100")
    engine.use("lookup", {"gamma": "8"})
    engine.use_settings(Settings(max_new_tokens=9))
    return chat_app.make(engine)


def test_turns_are_listed_in_a_line_each(app: ChatApp) -> None:
    with pytest.raises(UsageError, match="nothing was said"):
        do(app, "/history")
    questions = ["hello", "你好" * 60, "two\nlines \x1b[31m"]
    for question in questions:
        do(app, question)
    lines = do(app, "/history").splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert all(cell_len(line) <= 100 for line in lines)
    begins = [line.index(" · The quick") for line in lines]
    assert cell_len(lines[1][: begins[1]]) == begins[0] == begins[2]
    assert "你好…" in lines[1] and "two lines [31m" in lines[2]
    app.conversation.messages.insert(0, Message("assistant", "I begin."))
    assert do(app, "/history").splitlines()[0] == "  1  I begin."


def test_one_turn_is_shown_as_it_was_said(app: ChatApp) -> None:
    for question in ("hello", "and then?"):
        do(app, question)
    shown = do(app, "/history 2")
    assert shown == f"user:\nand then?\nassistant:\n{sanitize(contents(app)[-1])}\n"
    for wrong in ("0", "3", "-1", "x", "1 2", "²"):
        with pytest.raises(UsageError, match="expected the number of a turn, 1 to 2"):
            do(app, f"/history {wrong}")
    assert list(registry.complete(app, "/history ")) == ["1", "2"]


def test_a_question_is_shown_as_it_was_typed(app: ChatApp) -> None:
    app.screen = replace(app.screen, is_markdown=True)
    do(app, "# **one** <think>")
    assert do(app, "/history 1").splitlines()[:2] == ["user:", "# **one** <think>"]


def test_a_turn_keeps_its_marks(engine: Engine, app: ChatApp) -> None:
    marked = chat_app.make(engine, provenance="brackets")
    engine.use_settings(Settings(max_new_tokens=60))
    said = do(marked, "hello").splitlines()
    do(marked, "more")
    assert "⟨" in "".join(said)
    assert do(marked, "/history 1").splitlines()[3:] == said[: len(said) - 1]


def test_tokens_add_up_to_the_prompt(app: ChatApp) -> None:
    assert "0 of 4,096 tokens" in do(app, "/tokens")
    do(app, "/system be kind")
    for question in ("hello", "tell me all", "and then?"):
        do(app, question)
    use = measure(app.conversation)
    prompt = app.engine.encode(app.conversation.messages)
    assert use.used == len(prompt.ids) and use.template > 0 and use.unread == 0
    sizes = [count for count, _ in use.turns]
    asked = [len(app.engine.model.tokenizer(text).input_ids) for text in contents(app)[1::2]]
    assert sizes == [count + 9 for count in asked]  # replies have as many tokens as were generated
    told = do(app, "/tokens").splitlines()
    assert len(told[0]) == 99
    assert told[1] == f"{use.used:,} of 4,096 tokens, 2%; room for {4096 - use.used:,}"
    assert [line.split()[0] for line in told[2:]] == ["system", *["turn"] * 3, "template"]
    assert told[4].split() == ["turn", "2", str(sizes[1]), "tell", "me", "all"]
    for _ in range(12):
        do(app, "go on")
    folded = do(app, "/tokens").splitlines()
    assert folded[3].split() == ["turns", "1", "to", "3", str(sum(sizes))]


def test_turns_that_are_no_longer_read_take_no_room(app: ChatApp) -> None:
    for question in ("hello", "tell me", "and then?"):
        do(app, question)
    whole = measure(app.conversation)
    app.conversation.left_out = 2
    use = measure(app.conversation)
    assert use.unread == 2 and use.used < whole.used
    assert use.used == len(app.engine.encode(app.conversation.messages[-2:]).ids)
    assert "turns 1 to 2 no longer read" in do(app, "/tokens")


@pytest.mark.parametrize("symbols", [Symbols(), ASCII])
def test_the_bar_is_as_wide_as_asked_and_in_proportion(symbols: Symbols) -> None:
    use = ContextUse(25, ((10, "a"), (25, "b"), (0, "c")), unread=1, template=25, size=100)
    full, other, free = symbols.shades
    assert context_bar(use, symbols, 40) == full * 10 + other * 10 + other * 10 + free * 10
    over = ContextUse(90, ((90, "a"),), unread=0, template=9, size=100)
    assert len(context_bar(over, symbols, 40)) == 40 and free not in context_bar(over, symbols, 40)


def test_what_is_in_force_is_all_there(app: ChatApp) -> None:
    do(app, "/set temperature=0.5")
    rows = {line.split()[0]: line for line in do(app, "/params").splitlines()}
    known = {field.name for field in fields(app.engine.settings.sampling)}
    known |= {field.name for field in fields(Settings)} - {"sampling", "keep_logits"}
    assert known < set(rows) and {"model", "method", "template", "adapter", "context"} < set(rows)
    assert "(default 0.0)" in rows["temperature"] and "default" not in rows["top_p"]
    assert str(Path(app.engine.model.name).name) in rows["model"]


def test_an_encoder_decoder_has_no_context_to_fill() -> None:
    app = chat_app.make(load(str(folder.t5())))
    with pytest.raises(UsageError, match="the last question alone"):
        do(app, "/tokens")
