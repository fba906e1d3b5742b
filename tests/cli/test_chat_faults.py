"""What a chat in a terminal meets from outside: locked folders, full disks, signals, early keys."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import cli_model
import pytest
from chat_terminal import Chat, chatting

from nfox.cli.log.database import ConversationLog

pytestmark = pytest.mark.slow
OSC = "\x1b]52;c;QUJD\x07"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(cli_model.save(tmp_path_factory.mktemp("model")))


@pytest.fixture
def chat(model: str, tmp_path: Path) -> Iterator[Chat]:
    with chatting(tmp_path, "-m", model, "--max-new-tokens", "9") as chat:
        yield chat


def contents(file: Path) -> list[str]:
    return [message["content"] for message in json.loads(file.read_text())["messages"]]


def logged(folder: Path) -> list[str]:
    """Return what the last conversation of a log says."""
    return [row.content for row in ConversationLog(folder / "state/nfox/log.db").read().rows]


def test_a_command_that_fails_in_any_way_is_one_line(chat: Chat, tmp_path: Path) -> None:
    chat.until_prompt()
    chat.type("hello")
    work = tmp_path / "work"
    (work / "locked").touch()
    (work / "deep.json").write_text("[" * 100_000)
    (work / f"{OSC}.json").write_text(json.dumps([{"role": "user", "content": OSC}]))
    for typed, answer in (
        ("/save locked/x.json", "there is no folder locked"),
        (f"/save {'x' * 300}", "File name too long"),
        ("/save nul\0", "null byte"),
        ("/save ~nosuchuser/x", "there is no such home"),
        ("/load ~nosuchuser/x", "there is no such home"),
        ("/load nul\0", "null byte"),
        ("/load deep.json", "nested too deep"),
        ("/save deep.json", "deep.json exists"),
        ("/load locked/x.json", "Not a directory"),
        (f"/load {OSC}", "]52;c;QUJD: No such file"),
        (f"/template {OSC}", "]52;c;QUJD"),
        (f"/method {OSC}", "]52;c;QUJD"),
        ("/set seed=" + "9" * 5000, "expected a whole number"),
    ):
        written = chat.type(typed).decode()
        told = " ".join(written.partition("\x1b[?2004l")[2].split())
        assert answer.replace(" ", "") in told.replace(" ", ""), (typed, told)
        assert "Traceback" not in written and "\x1b]" not in written
    chat.type("/save talk.json")
    assert contents(work / "talk.json") == ["hello", cli_model.said(9)]
    assert b"\x1b]" not in chat.type(f"/load {OSC}.json")


def test_where_nothing_can_be_kept_it_is_tried_again_and_rescued(
    chat: Chat, tmp_path: Path
) -> None:
    (tmp_path / "state").touch()
    chat.until_prompt()
    written = chat.type("hello")
    assert written.count(b"the conversation is not kept") == 1
    assert written.count(b"what is typed is not kept") == 1
    assert b"kept" not in chat.type("again")
    (tmp_path / "state").unlink()
    written = chat.type("once more")
    assert b"the conversation is kept again" in written and b"what is typed is kept" in written
    last = tmp_path / "state" / "nfox" / "log.db"
    assert logged(tmp_path)[::2] == ["hello", "again", "once more"]
    assert last.stat().st_mode & 0o077 == 0
    last.parent.rename(tmp_path / "aside")
    last.parent.touch()
    chat.type("at last")
    chat.keys(b"\x04")
    with pytest.raises(EOFError) as end:
        chat.until_prompt(b"never")
    assert chat.process.wait(60) == 0
    found = re.search(r"the conversation is in (\S+); /load reads it", str(end.value))
    assert found and contents(Path(found[1]))[::2] == ["hello", "again", "once more", "at last"]
    Path(found[1]).unlink()


def test_a_full_disk_costs_only_what_it_cannot_take(chat: Chat, tmp_path: Path) -> None:
    state = tmp_path / "state" / "nfox"
    state.mkdir(parents=True)
    (state / "input_history").symlink_to("/dev/full")
    (state / "log.db").symlink_to("/dev/full")
    chat.until_prompt()
    written = chat.type("hello")
    assert b"Traceback" not in written
    assert written.count(b"is not kept: ") == 2
    assert b"not kept" not in chat.type("again")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_saves_a_reply_and_sets_the_terminal_back(
    number: int, model: str, tmp_path: Path
) -> None:
    with chatting(tmp_path, "-m", model, "--max-new-tokens", "4000") as chat:
        before = chat.settings()
        chat.until_prompt()
        chat.keys(b"hello\r")
        time.sleep(0.5)
        assert chat.settings() != before
        chat.process.send_signal(number)
        with pytest.raises((EOFError, TimeoutError)):
            chat.until_prompt(b"never", patience=0.5)
        assert chat.process.wait(60) == -number
        assert chat.settings() == before
    question, reply = logged(tmp_path)
    assert question == "hello"
    assert reply and cli_model.said(4000).startswith(reply.rstrip("\ufffd"))


def test_a_signal_at_the_prompt_sets_the_terminal_back(chat: Chat) -> None:
    before = chat.settings()
    chat.until_prompt()
    chat.keys(b"half a line")
    time.sleep(0.2)
    chat.process.send_signal(signal.SIGHUP)
    assert chat.process.wait(60) == -signal.SIGHUP
    assert chat.settings() == before


def test_a_window_that_is_closed_loses_nothing(model: str, tmp_path: Path) -> None:
    with chatting(tmp_path, "-m", model, "--max-new-tokens", "4000") as chat:
        chat.until_prompt()
        chat.keys(b"hello\r")
        time.sleep(0.5)
        chat.hang_up()
        assert chat.process.wait(60) == -signal.SIGHUP
    state = tmp_path / "state" / "nfox"
    assert {path.name for path in state.iterdir()} == {"input_history", "log.db"}
    assert logged(tmp_path)[0] == "hello"


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_enter_sends_also_before_there_is_a_prompt(term: str, model: str, tmp_path: Path) -> None:
    words = ("-m", model, "--max-new-tokens", "300")
    with chatting(tmp_path, *words, TERM=term) as chat:
        chat.keys(b"typed while it loads\r")
        time.sleep(0.5)  # by now it loads, or gives the reply
        chat.keys(b"typed meanwhile\r")
        chat.keys(b"/exit\r")
        with pytest.raises(EOFError):
            chat.until_prompt(b"never")
        assert chat.process.wait(60) == 0
    said = logged(tmp_path)
    assert said[::2] == ["typed while it loads", "typed meanwhile"]


def test_what_is_pasted_while_the_model_loads_is_not_cut(model: str, tmp_path: Path) -> None:
    with chatting(tmp_path, "-m", model) as chat:
        chat.until(b"\x1b[c")  # the terminal is asked for its kind, and then the model is loaded
        chat.keys(b"x" * 4100 + b"END")  # more than a terminal keeps of a line that it reads
        chat.until(b"END")
