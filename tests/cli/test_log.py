"""The log of conversations: what is in it is what the chat has become, whatever was done."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from html import unescape
from pathlib import Path

import cli_model
import pytest
from chat_terminal import chatting
from rich.cells import cell_len
from typer.testing import CliRunner

from nfox import Conversation, Settings, load
from nfox.cli.app import app as program
from nfox.cli.log.commands import line_of
from nfox.cli.log.database import ConversationLog
from nfox.cli.log.entry import Entry
from nfox.cli.log.writer import LogWriter
from nfox.controls import sanitize
from nfox.engine import Engine
from nfox.errors import NfoxError, UsageError
from nfox.text.pieces import pieces_of_runs
from nfox.train.data.conversations import read_conversations


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    engine = load(str(cli_model.save(tmp_path_factory.mktemp("model"))))
    engine.use("lookup")  # what it drafts depends on no time
    engine.use_settings(Settings(max_new_tokens=31))
    return engine


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ConversationLog:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return ConversationLog()


def ask(conversation: Conversation, writer: LogWriter, text: str = "hello") -> None:
    stream = conversation.send(text)
    writer.keep_question(conversation)
    pieces = [piece for update in stream.updates() for piece in update.pieces]
    writer.keep(conversation, stream.reply, pieces, pieces)


def texts(log: ConversationLog, number: int | None = None) -> list[str]:
    return [row.content for row in log.read(number).rows]


def nfox(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(program, ["log", *words])
    assert done.exit_code == code, done.output
    return done.output


def test_whatever_is_done_the_log_has_what_the_conversation_has(
    engine: Engine, log: ConversationLog
) -> None:
    dice, conversation, writer = random.Random(7), Conversation(engine), LogWriter(log)

    def again(make: Callable[[], object]) -> None:
        stream = make()
        writer.keep_question(conversation)
        writer.keep(conversation, stream.read_to_end())

    deeds: list[Callable[[], object]] = [
        lambda: ask(conversation, writer, f"question {dice.random()}"),
        lambda: again(conversation.regenerate),
        lambda: again(conversation.go_on),
        lambda: (conversation.undo(), writer.keep(conversation)),
        lambda: (conversation.reset(), writer.begin()),
        lambda: setattr(conversation, "system", f"be brief {dice.random()}"),
    ]
    for _ in range(40):
        try:
            dice.choices(deeds, (5, 2, 2, 2, 1, 1))[0]()
        except UsageError:
            continue
        writer.keep(conversation)
        if conversation.turns:
            entry = log.read(writer.number)
            restored = Conversation(engine)
            assert restored.restore(entry.to_json(), "the log") == engine.model.name
            assert restored.messages == conversation.messages
    assert len(log.entries()) > 1


def test_a_question_is_there_before_its_reply(engine: Engine, log: ConversationLog) -> None:
    conversation, writer = Conversation(engine), LogWriter(log)
    stream = conversation.send("what will be lost?")
    writer.keep_question(conversation)
    assert texts(log) == ["what will be lost?"]
    stream.close()  # before there was any token: the question is not part of the conversation
    writer.keep(conversation, stream.reply)
    assert not log.entries() and writer.number is None


def test_a_regenerated_reply_is_there_until_another_is(
    engine: Engine, log: ConversationLog
) -> None:
    conversation, writer = Conversation(engine), LogWriter(log)
    ask(conversation, writer)
    stream = conversation.regenerate()
    writer.keep_question(conversation)
    assert len(texts(log)) == 2
    stream.close()


def test_how_a_reply_was_made_is_kept_with_it(engine: Engine, log: ConversationLog) -> None:
    conversation, writer = Conversation(engine), LogWriter(log)
    ask(conversation, writer)
    begun = log.read().rows[-1]
    stream = conversation.go_on()
    pieces = [piece for update in stream.updates() for piece in update.pieces]
    known = [*pieces_of_runs(begun.content, begun.sources), *pieces]
    writer.keep(conversation, stream.reply, pieces, known)
    ask(conversation, writer, "more")
    for row in log.read().rows[1::2]:
        made = json.loads(row.made or "")
        assert sum(length for length, _ in row.sources) == len(row.content)
        assert made["spec"]["method"] == engine.method and made["finish_reason"] == "length"


def test_two_chats_do_not_touch_each_others_conversation(
    engine: Engine, log: ConversationLog
) -> None:
    pair = [(Conversation(engine), LogWriter(log)) for _ in range(2)]
    for turn in range(3):
        for number, (conversation, writer) in enumerate(pair):
            ask(conversation, writer, f"{number}.{turn}")
    assert [texts(log, writer.number)[::2] for _, writer in pair] == [
        [f"{number}.{turn}" for turn in range(3)] for number in range(2)
    ]
    entry = log.read(pair[0][1].number)
    for conversation, writer in pair:  # both go on with the same one
        conversation.restore(entry.to_json(), "the log")
        writer.go_on_with(entry)
    for number, (conversation, writer) in enumerate(pair):
        ask(conversation, writer, f"then {number}")
    assert [texts(log, writer.number)[-2] for _, writer in pair] == ["then 0", "then 1"]
    assert pair[0][1].number == entry.id != pair[1][1].number


def test_a_conversation_that_was_deleted_meanwhile_is_written_anew(
    engine: Engine, log: ConversationLog
) -> None:
    conversation, writer = Conversation(engine), LogWriter(log)
    ask(conversation, writer)
    log.delete(log.read().id)
    ask(conversation, writer, "still here")
    assert texts(log)[::2] == ["hello", "still here"]


def test_what_was_kept_before_there_was_a_log_is_taken_over(
    engine: Engine, log: ConversationLog
) -> None:
    former = log.path.with_name("last.json")
    former.parent.mkdir()
    conversation = Conversation(engine, system="be brief")
    conversation.send("hello").read_to_end()
    conversation.save(former)
    assert log.entries()[0].title == "hello"
    assert not former.exists()
    restored = Conversation(engine)
    restored.restore(log.read().to_json(), "the log")
    assert restored.messages == conversation.messages
    former.write_text("[]")
    log.path.unlink()
    assert not log.entries() and former.read_text() == "[]", "what is none stays where it is"


def test_only_its_owner_reads_it_and_what_is_deleted_is_gone(
    engine: Engine, log: ConversationLog
) -> None:
    conversation, writer = Conversation(engine), LogWriter(log)
    ask(conversation, writer, "the secret is rosebud")
    assert log.path.stat().st_mode & 0o077 == 0
    assert b"rosebud" in log.path.read_bytes()
    nfox("delete", str(writer.number), "--yes")
    assert b"rosebud" not in log.path.read_bytes()


def test_what_is_shown_is_what_was_said(engine: Engine, log: ConversationLog) -> None:
    text = "all:\n\tcc  -o a\n\n\t\x1b[2Jdone\u3000\u2028."
    ask(Conversation(engine), LogWriter(log), text)
    said = nfox("show")
    assert f"\nuser:\n{sanitize(text)}\n\nassistant:\n{sanitize(texts(log)[1])}\n" in said
    assert "\tcc  -o a\n\n\t[2Jdone" in said and "\x1b" not in said


@pytest.mark.parametrize("words", [["list", "--json"], ["export"], ["export", "-f", "fastchat"]])
def test_json_is_whole_in_every_locale(
    words: list[str], engine: Engine, log: ConversationLog
) -> None:
    ask(Conversation(engine), LogWriter(log), "\u4f60\u597d \U0001f98a")
    done = [CliRunner(charset=name).invoke(program, ["log", *words]) for name in ("ascii", "utf-8")]
    assert json.loads(done[0].stdout) == json.loads(done[1].stdout)
    assert "\u4f60" in done[1].stdout and done[0].stdout.isascii()


def test_a_document_is_whole_or_refused_in_every_locale(
    engine: Engine, log: ConversationLog, tmp_path: Path
) -> None:
    ask(Conversation(engine), LogWriter(log), "\u4f60\u597d")
    words = ["log", "export", "-f", "md"]
    done = CliRunner(charset="ascii").invoke(program, words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "stdout is in ascii, which has no '\\u" in done.stderr
    assert "\u4f60" in CliRunner(charset="utf-8").invoke(program, words).stdout
    html = [
        CliRunner(charset=name).invoke(program, ["log", "export", "-f", "html"]).stdout
        for name in ("latin-1", "utf-8")
    ]
    assert html[0].isascii() and "\u4f60" in html[1]
    assert unescape(html[0]) == unescape(html[1])
    for format in ("md", "html"):
        out = tmp_path / f"one.{format}"
        words = ["log", "export", "--out", str(out)]
        assert CliRunner(charset="ascii").invoke(program, words).exit_code == 0
        assert "\u4f60" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize("which", [["1"], ["--all"]])
def test_nothing_is_deleted_where_nobody_can_be_asked(
    which: list[str], engine: Engine, log: ConversationLog
) -> None:
    ask(Conversation(engine), LogWriter(log))
    assert "no terminal to ask at" in (said := nfox("delete", *which, code=2))
    assert "add --yes" in said and "1 turn" not in said and len(log.entries()) == 1
    nfox("delete", *which, "--yes")
    assert "deleted 0" in nfox("delete", "--all"), "of nothing nothing need be asked"


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"no database, and long enough" * 99, "not a database"), (None, "later nfox")],
)
def test_a_file_that_is_no_log_is_one_line(
    content: bytes | None, words: str, log: ConversationLog
) -> None:
    log.path.parent.mkdir()
    if content is None:
        log.entries()
        with sqlite3.connect(log.path) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
    else:
        log.path.write_bytes(content)
    with pytest.raises(NfoxError, match=words):
        log.entries()


def test_conversations_are_listed_searched_shown_exported_and_deleted(
    engine: Engine, log: ConversationLog, tmp_path: Path
) -> None:
    assert "no conversation in the log yet" in nfox("show", code=2)
    for questions in (
        ("Was ist ein Fuchs?", "STRASSE"),
        ("你好吗朋友",),
        ("a fox\x1b[2J and more",),
    ):
        conversation, writer = Conversation(engine), LogWriter(log)
        for question in questions:
            ask(conversation, writer, question)
    lines = nfox("list").splitlines()
    assert nfox().splitlines() == lines
    assert [line.split()[0] for line in lines] == ["3", "2", "1"]
    assert "2 turns" in lines[2] and "Was ist ein Fuchs?" in lines[2] and "\x1b" not in lines[0]
    assert len(nfox("list", "-n", "1").splitlines()) == 1
    assert [line.split()[0] for line in nfox("search", "FUCHS", "ist").splitlines()] == ["1"]
    assert nfox("search", "straße").split()[0] == "1"
    assert nfox("search", "好吗").split()[0] == "2"
    assert "no message has Fuchs and straße" in nfox("search", "Fuchs", "straße")
    listed = json.loads(nfox("list", "--json"))["conversations"]
    assert [row["id"] for row in listed] == [3, 2, 1]
    assert "user:\nWas ist ein Fuchs?" in nfox("show", "1")
    nfox("export", "1", "-o", str(tmp_path / "one.json"))
    restored = Conversation(engine)
    restored.load(tmp_path / "one.json")
    assert [m.content for m in restored.messages] == texts(log, 1)
    training = json.loads(nfox("export", "--all", "-f", "fastchat"))
    assert [turn["from"] for turn in training[2]["conversations"]] == ["human", "gpt"] * 2
    several = json.loads(nfox("export", "--all"))
    for number, one in zip((3, 2, 1), several, strict=True):
        (tmp_path / "one.json").write_text(json.dumps(one))
        restored.load(tmp_path / "one.json")
        assert [m.content for m in restored.messages] == texts(log, number)
    nfox("export", "1", "-o", str(tmp_path / "one.html"))
    page = (tmp_path / "one.html").read_text()
    assert "Was ist ein Fuchs?" in page and 'class="a"' in page
    assert nfox("export", "2", "-f", "md").startswith("# 你好吗朋友\n")
    assert "no format goes by .docx" in nfox("export", "1", "-o", str(tmp_path / "a.docx"), code=2)
    assert not (tmp_path / "a.docx").exists()
    assert "one.html exists" in nfox("export", "1", "-o", str(tmp_path / "one.html"), code=2)
    assert "holds one conversation" in nfox("export", "--all", "-f", "html", code=2)
    assert "there is no conversation 9" in nfox("delete", "1", "9", "--yes", code=2)
    assert len(log.entries()) == 3, "where one is wrong, none is deleted"
    nfox("delete", "--all", "--yes")
    assert nfox("list") == "there is no conversation in the log yet\n"
    assert not any(json.loads(nfox("list", "--json")).values())


def test_a_restored_talk_keeps_its_title_and_number(engine: Engine, log: ConversationLog) -> None:
    conversation, writer = Conversation(engine, system="be brief"), LogWriter(log)
    ask(conversation, writer, "x" * 99)
    entry = log.read()
    assert entry.title == "x" * 59 + "…"
    log.retitle(entry.id, "letters")
    ask(conversation, writer)
    assert (log.read().id, log.read().title) == (entry.id, "letters")
    assert log.read().rows[0].role == "system"


@pytest.mark.slow
def test_a_chat_that_is_killed_has_kept_the_question_and_goes_on(
    engine: Engine, tmp_path: Path
) -> None:
    model, log = engine.model.name, ConversationLog(tmp_path / "state" / "nfox" / "log.db")
    with chatting(tmp_path, "-m", model, "--max-new-tokens", "4000") as chat:
        chat.until_prompt()
        chat.keys(b"do not lose me\r")
        deadline = time.monotonic() + 60
        while not log.path.exists() or not log.entries():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        chat.process.send_signal(signal.SIGKILL)
        chat.process.wait(60)
    assert texts(log) == ["do not lose me"]
    words = ("-m", model, "--max-new-tokens", "9", "--resume", "1")
    with chatting(tmp_path, *words) as chat:
        assert b"going on with 1: do not lose me" in chat.until_prompt()
        chat.type("/regen")
        chat.type("/title found again")
        written = chat.type("/log")
        assert b"*   1 " in written and b"found again" in written
    assert len(texts(log)) == 2
    with chatting(tmp_path, "-m", model, "--max-new-tokens", "9", "--no-save") as chat:
        chat.until_prompt()
        chat.type("between us")
    assert len(log.entries()) == 1


@pytest.mark.parametrize("title", ["a title " * 20, "中文标题" * 20, "short"])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_line_of_a_conversation_fits_into_the_terminal(title: str, width: int) -> None:
    entry = Entry(7, 1, 0.0, 0.0, "org/model", "chatml", title, 1)
    line = line_of(entry, width)
    assert cell_len(line) <= width and " 1 turn  " in line and line.endswith("model)")
    assert title in line_of(entry) and (len(title) > 5 or line == line_of(entry))


def test_what_is_exported_to_train_on_is_read_by_trainers(
    engine: Engine, log: ConversationLog, tmp_path: Path
) -> None:
    """By ours in both layouts, and by FastChat's, which takes two speakers and a field "system"."""
    asked = {"": ("hello", "and then?"), "be brief": ("你好",)}
    for system, questions in asked.items():
        conversation, writer = Conversation(engine, system=system or None), LogWriter(log)
        for question in questions:
            ask(conversation, writer, question)
    expected = [texts(log, number) for number in (2, 1)]
    for layout in ("json", "fastchat"):
        file = tmp_path / f"{layout}.json"
        nfox("export", "--all", "-f", layout, "-o", str(file))
        read = read_conversations(str(file))
        assert [[m.content for m in messages] for messages in read.conversations] == expected
        assert [messages[0].role for messages in read.conversations] == ["system", "user"]
    for record in json.loads((tmp_path / "fastchat.json").read_text()):
        speakers = [turn["from"] for turn in record["conversations"]]
        assert speakers == ["human", "gpt"] * (len(speakers) // 2)
        assert record.get("system") in (None, "be brief")
