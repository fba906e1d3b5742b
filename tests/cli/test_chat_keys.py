"""Ctrl-Z and `fg`, and the person's editor, in a terminal."""

from __future__ import annotations

import json
import re
import stat
import termios
import time
from contextlib import nullcontext
from pathlib import Path

import cli_model
import pyte
import pytest
from chat_terminal import Chat, chatting
from job_control import STOPPED
from terminals import Terminal

from nfox.cli.chat.editor import edit
from nfox.errors import UsageError

pytestmark = pytest.mark.slow
CTRL_C, CTRL_D, CTRL_E, CTRL_G = b"\x03", b"\x04", b"\x05", b"\x07"
CTRL_X, CTRL_Z, ENTER = b"\x18", b"\x1a", b"\r"
UNDER_A_SHELL = "job_control:under_a_shell"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(cli_model.save(tmp_path_factory.mktemp("model")))


def shown(written: bytes) -> str:
    """Return what a terminal has on its screen and in its scrollback."""
    screen = Terminal(80, 24, history=1_000_000, ratio=0.001)
    pyte.ByteStream(screen).feed(written)
    past = ["".join(row[x].data for x in range(80)) for row in screen.history.top]
    return "\n".join(row.rstrip() for row in [*past, *screen.display]).rstrip()


def messages(chat: Chat, folder: Path) -> list[str]:
    chat.type("/save talk.json")
    data = json.loads((folder / "work" / "talk.json").read_text())
    return [message["content"] for message in data["messages"]]


def editor(folder: Path, script: str) -> str:
    """Return the path of an editor that does what a script says with the file "$1"."""
    file = folder / "an editor"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return f"'{file}'"


def test_ctrl_z_in_mid_reply_gives_the_terminal_back_and_fg_goes_on(tmp_path: Path) -> None:
    endless = cli_model.save(tmp_path / "model", context=1 << 17)  # tokens, which take a minute
    words = ("-m", endless, "--method", "none", "-M", "100000")
    with chatting(tmp_path, *words, prepare=UNDER_A_SHELL) as chat:
        before = chat.settings()
        chat.until_prompt()
        begin, stopped, left = time.monotonic(), 0.0, ""
        chat.keys(b"hello" + ENTER)
        for _ in range(2):
            written = chat.until(b"tok/s")
            chat.keys(CTRL_Z)
            written += chat.until(STOPPED)
            assert chat.settings() == before
            at_rest = shown(written)
            assert "tok/s" not in at_rest and at_rest.endswith(f"{STOPPED.decode()}\n$")
            # The line that was left is there again behind the stop, and goes on.
            assert left in at_rest.partition("fg\n")[2].replace("\n", "")
            left = at_rest.rpartition(f"\n{STOPPED.decode()}")[0].rpartition("\n")[2]
            time.sleep(0.5)
            stopped += 0.5
            chat.keys(b"fg\n")
        written = chat.until(b"tok/s")
        assert not chat.settings()[3] & termios.ECHO
        chat.keys(CTRL_C)
        written += chat.until_prompt()
        assert left in shown(written).partition("fg\n")[2].replace("\n", "")
        elapsed = time.monotonic() - begin
        told = chat.type("/stats")
        took = re.search(rb"tok in ([\d.]+) (m?s), [\d,]+ steps", told)
        assert took is not None, told
        assert float(took[1]) / (1000 if took[2] == b"ms" else 1) < elapsed - stopped
        asked, reply = messages(chat, tmp_path)
        assert asked == "hello" and cli_model.said(1 << 17).startswith(reply.rstrip("\ufffd"))


def test_ctrl_z_at_the_prompt_keeps_what_was_typed(model: str, tmp_path: Path) -> None:
    with chatting(tmp_path, "-m", model, "-M", "9", prepare=UNDER_A_SHELL) as chat:
        before = chat.settings()
        chat.until_prompt()
        chat.keys(b"half a quest" + CTRL_Z)
        chat.until(STOPPED)
        assert chat.settings() == before
        chat.keys(b"fg\n")
        chat.until_prompt()
        chat.keys(b"ion" + ENTER)
        chat.until_prompt()
        assert messages(chat, tmp_path)[0] == "half a question"
        chat.keys(CTRL_D)
        assert chat.process.wait(60) == 0
        assert chat.settings() == before


def test_the_editor_gets_what_was_typed_and_gives_it_back(model: str, tmp_path: Path) -> None:
    script = 'stty -a > tty; printf " edited\\n\\n2nd\\n" >> "$1"; kill -INT 0'
    name = editor(tmp_path, f"trap : INT; {script}")
    with chatting(tmp_path, "-m", model, "-M", "9", EDITOR="nowhere", VISUAL=name) as chat:
        chat.until_prompt()
        for keys in (CTRL_G, CTRL_X + CTRL_E):
            chat.keys(b"a text" + keys)
            chat.until_prompt()
            chat.keys(b"!" + ENTER)
            chat.until_prompt()
        assert messages(chat, tmp_path) == ["a text edited\n\n2nd!", cli_model.said(9)] * 2
        settings = (tmp_path / "work" / "tty").read_text()
        assert " echo " in settings and " icanon " in settings and " icrnl" in settings


def test_edit_puts_the_next_message_into_the_line(model: str, tmp_path: Path) -> None:
    name = editor(tmp_path, 'stty -a > tty; cat "$1" > had; echo "written there" > "$1"')
    with chatting(tmp_path, "-m", model, "-M", "9", VISUAL=name) as chat:
        chat.until_prompt()
        chat.type("/edit to begin with")
        chat.keys(b" and here" + ENTER)
        chat.until_prompt()
        assert messages(chat, tmp_path) == ["written there and here", cli_model.said(9)]
        assert (tmp_path / "work" / "had").read_text() == "to begin with"
        assert " echo " in (tmp_path / "work" / "tty").read_text()


def test_an_editor_that_fails_costs_nothing(model: str, tmp_path: Path) -> None:
    told = b"false ended with code 1; the text stays"
    with chatting(tmp_path, "-m", model, "-M", "9", VISUAL="false") as chat:
        chat.until_prompt()
        assert told in chat.type("/edit")
        chat.keys(b"kept" + CTRL_G)
        assert told in chat.until_prompt()
        chat.keys(ENTER)
        chat.until_prompt()
        assert messages(chat, tmp_path)[0] == "kept"


@pytest.mark.parametrize(
    ("command", "told"),
    [("nowhere --wait", "nowhere: No such file"), ("'", "VISUAL=': No closing quotation")],
)
def test_an_editor_that_there_is_not_is_told(
    command: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nfox.cli.chat.editor._lent_terminal", nullcontext)
    monkeypatch.setenv("VISUAL", command)
    with pytest.raises(UsageError, match=told) as error:
        edit("text")
    assert error.value.hint
    monkeypatch.setenv("PATH", "")
    for name in ("VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="there is no editor"):
        edit("text")
