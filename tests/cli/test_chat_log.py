"""The chat and its log: what is known of replies stays known, whatever was done, and nothing is
written twice or lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import chat_app
import folder
import pytest
from chat_app import contents, do, said
from typer.testing import CliRunner

from nfox import Message, Settings, load
from nfox.cli.app import app as program
from nfox.cli.chat.app import ChatApp
from nfox.cli.chat.commands import registry
from nfox.cli.chat.commands.conversation import restored
from nfox.cli.chat.interrupt import SecondInterrupt
from nfox.cli.chat.repl import _chat
from nfox.cli.chat.start import _check_resumed
from nfox.cli.ending import EndedBySignal
from nfox.cli.log.database import ConversationLog
from nfox.cli.log.writer import LogWriter
from nfox.decoding.sampling import Sampling
from nfox.engine import Engine
from nfox.errors import UsageError
from nfox.models.options import ModelOptions
from nfox.reply import Reply, Request, Update
from nfox.reply_stream import ReplyStream
from nfox.text.pieces import text_of


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load(str(folder.llama()), method="lookup", loading=ModelOptions(dtype="float32"))


@pytest.fixture
def app(engine: Engine, tmp_path: Path) -> ChatApp:
    engine.use_settings(Settings(max_new_tokens=12))
    engine._replies = 0  # the noise of a reply is that of its number, whatever ran before
    app = chat_app.make(engine)
    app.log = LogWriter(ConversationLog(tmp_path / "log.db"))
    return app


def log_of(app: ChatApp) -> ConversationLog:
    assert app.log is not None
    return app.log.log


def covered(app: ChatApp) -> list[bool]:
    """Return of every reply in the log whether the sources of its whole text are there."""
    rows = [row for row in log_of(app).read().rows if row.role == "assistant"]
    made = [json.loads(row.made or '{"sources": []}') for row in rows]
    return [
        sum(length for length, _ in one["sources"]) == len(row.content) > 0
        for row, one in zip(rows, made, strict=True)
    ]


def stopped_after(app: ChatApp, monkeypatch: pytest.MonkeyPatch, steps: int) -> Callable[[], None]:
    """Have replies cancelled after so many steps; return what ends that."""
    answer = app.engine.stream

    def stream(request: Request, on_end: Callable[[Reply], None]) -> ReplyStream:
        made = answer(request, on_end=on_end)
        updates = made.updates

        def some() -> Iterator[Update]:
            if not steps:
                made.cancel()
            for number, update in enumerate(updates(), 1):
                yield update
                if number >= steps:
                    made.cancel()

        monkeypatch.setattr(made, "updates", some)
        return made

    monkeypatch.setattr(app.engine, "stream", stream)
    return lambda: monkeypatch.setattr(app.engine, "stream", answer)


def test_a_reply_that_was_stopped_and_answered_again_has_its_sources(
    app: ChatApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = stopped_after(app, monkeypatch, 2)
    do(app, "hello")
    begun = contents(app)[-1]
    whole()
    do(app, "/regen")
    assert contents(app)[-1].startswith(begun) and contents(app)[-1] != begun
    assert covered(app) == [True]


def test_a_system_message_leaves_what_is_known_of_replies(app: ChatApp) -> None:
    do(app, "hello")
    do(app, "/system be brief")
    do(app, "more")
    assert covered(app) == [True, True]


def test_a_reply_that_went_on_has_its_sources_when_it_is_picked_again(app: ChatApp) -> None:
    app.engine.use_settings(Settings(Sampling(temperature=1.0, seed=4), max_new_tokens=6))
    do(app, "hello")
    do(app, "/continue")
    first = contents(app)[-1]
    do(app, "/retry 1")
    do(app, "/retry pick 0")
    assert contents(app)[-1] == first
    assert text_of(app.replies.pieces(app.conversation.turns)[-1]) == first
    assert covered(app) == [True]


def test_without_history_a_question_that_was_stopped_doubles_nothing(
    app: ChatApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.conversation.history = False
    do(app, "hello")
    stopped_after(app, monkeypatch, 0)
    do(app, "never mind")
    assert app.next_input == "never mind"
    assert [entry.title for entry in log_of(app).entries()] == ["hello"]


@pytest.mark.parametrize("ending", [KeyboardInterrupt(), EndedBySignal(15)])
def test_a_signal_while_a_reply_is_written_does_not_lose_it(
    ending: BaseException, app: ChatApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = LogWriter.keep

    def interrupted(*words: object) -> None:
        monkeypatch.setattr(LogWriter, "keep", keep)
        raise ending

    monkeypatch.setattr(LogWriter, "keep", interrupted)
    with pytest.raises(type(ending)):
        do(app, "hello")
    assert len(log_of(app).read().rows) == 1
    app.leave()
    assert [row.content for row in log_of(app).read().rows] == contents(app)
    assert "kept" not in chat_app.said(app)


def test_what_is_known_of_replies_comes_back_with_them(app: ChatApp, tmp_path: Path) -> None:
    for question in ("hello", "more", "/continue"):
        do(app, question)
    known = app.replies.pieces(app.conversation.turns)
    other = chat_app.make(app.engine)
    other.log = LogWriter(log_of(app))
    do(other, "what was before")
    do(other, "/resume 1")
    found = other.replies.pieces(other.conversation.turns)
    assert [text_of(pieces) for pieces in found] == [text_of(pieces) for pieces in known]
    assert [{p.source for p in pieces} for pieces in found] == [
        {p.source for p in pieces} for pieces in known
    ]
    do(other, f"/export {tmp_path / 'talk.html'}")
    assert 'class="c"' in (tmp_path / "talk.html").read_text()
    for command in ("/stats", "/why", "/heat", "/race none lookup"):
        with pytest.raises(UsageError, match="decoded is not known"):
            do(other, command)
    do(other, "/continue")
    assert covered(other) == [True, True]


@pytest.mark.parametrize("number", [1 << 63, -(1 << 70), 10**30])
def test_a_number_that_no_conversation_can_have_is_one_that_none_has(
    number: int, app: ChatApp
) -> None:
    for use in (log_of(app).read, log_of(app).delete):
        with pytest.raises(UsageError, match=f"there is no conversation {number} in the log"):
            use(number)
    assert log_of(app).entries(abs(number)) == []


@pytest.mark.parametrize("ending", [SecondInterrupt(), EndedBySignal(15)])
def test_who_ends_by_force_a_chat_that_is_not_kept_leaves_no_file(
    ending: BaseException, app: ChatApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter(["hello"])

    def read(start: str) -> str:
        if (line := next(lines, None)) is None:
            raise ending
        return line

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    log, app.log = log_of(app), None  # as with --no-save
    with pytest.raises(type(ending)):
        _chat(app, read, "")
    assert contents(app)[0] == "hello" and not log.path.exists()
    assert not (tmp_path / "state").exists()


def test_a_number_is_none_or_named_once(
    app: ChatApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    app.log = LogWriter(ConversationLog())
    for question in ("hello", "/reset", "again"):
        do(app, question)

    def nfox(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(program, words)
        return done.exit_code, done.output

    code, told = nfox("heat", "9" * 300)
    assert code == 2 and "OSError" not in told
    code, told = nfox("heat", "9" * 5000)
    assert code == 2 and "ValueError" not in told
    assert nfox("log", "delete", "1", "1", "--yes")[0] == 0
    assert [entry.id for entry in log_of(app).entries()] == [2]
    with pytest.raises(UsageError, match="expected a number"):
        _check_resumed("9" * 5000)


def test_a_resumed_reply_is_drawn_as_it_was(app: ChatApp) -> None:
    app.screen = replace(app.screen, is_markdown=True)
    text = "```\n" + "code\n" * 10 + "```\n- **a**\n- b *c*"
    app.conversation.messages = [Message("user", "one"), Message("assistant", text)]
    restored(app, None)
    assert said(app).splitlines() == [
        *("loaded 2 messages", "user: one", "assistant:", "… 2 lines before"),
        *("code",) * 9,
        *("───", "• a", "• b c"),
    ]
    app.conversation.messages = [Message("user", "one"), Message("assistant", "**yes**")]
    restored(app, None)
    assert said(app).splitlines()[-2:] == ["assistant:", "yes"]


def test_a_conversation_is_not_resumed_by_itself(app: ChatApp) -> None:
    with pytest.raises(UsageError, match="no conversation in the log yet"):
        do(app, "/resume")
    do(app, "hello")
    for command in ("/resume", "/load"):
        with pytest.raises(UsageError, match="no other conversation"):
            do(app, command)
    with pytest.raises(UsageError, match="1 is this one"):
        do(app, "/resume 1")
    assert list(registry.complete(app, "/resume ")) == []
    do(app, "/reset")
    assert list(registry.complete(app, "/resume ")) == ["1"]
    do(app, "again")
    assert list(registry.complete(app, "/resume ")) == ["1"]
    assert do(app, "/resume").startswith("going on with 1: hello")
    assert list(registry.complete(app, "/resume ")) == ["2"]
    assert do(app, "/log").splitlines()[1].startswith("*   1")
