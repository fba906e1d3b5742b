"""The chat as a person has it: the program in a pseudo-terminal, read from its screen."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cli_model
import pexpect
import programs
import pytest
from pexpect.fdpexpect import fdspawn
from pyte import Stream
from terminals import Terminal, bare

from nfox.cli.display.reply_view import clean
from nfox.demo import TARGET

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PATIENCE = 90  # seconds; a busy machine takes long to import torch
ASKED, ATTRIBUTES = "\x1b[c", b"\x1b[?62c"
UNNEEDED = {
    "bitsandbytes",
    "datasets",
    "fastapi",
    "fastchat.model",
    "matplotlib",
    "openai",
    "pandas",
}
UNNEEDED |= {"peft", "scipy", "sklearn", "torch._inductor.compile_fx", "torchao", "uvicorn"}
ENTER, CTRL_C, CTRL_D, CTRL_J = "\r", "\x03", "\x04", "\x0a"


class Program:
    """The chat in a terminal of its own.

    Args:
        home: the folder it runs in.
        arguments: of it.
        columns: of the terminal.
        answer: what the terminal says when it is asked for its background and its attributes.
        real: whether it is started as a person starts it, with its own imports.
        env: variables of its environment.
    """

    def __init__(
        self,
        home: Path,
        *arguments: str,
        columns: int = 80,
        answer: bytes = ATTRIBUTES,
        real: bool = False,
        **env: str,
    ) -> None:
        self.home = home
        self.answer = answer
        self.raw = ""
        self.screen = Terminal(columns, 24, history=100_000, ratio=0.001)
        self.stream = Stream(self.screen)
        foreign = ("NFOX_", "NO_COLOR", "COLUMNS", "LINES")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        settings = {
            "TERM": "xterm-256color",
            "OMP_NUM_THREADS": "1",
            "PROMPT_TOOLKIT_NO_CPR": "1",
            "XDG_STATE_HOME": str(home),
            "PYTHONPATH": str(ROOT),
        }
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, columns))
        files: dict[str, Any] = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        files |= {"cwd": home, "env": {**kept, **settings, **env}}
        self.process: programs.Program | subprocess.Popen[bytes]
        if real:
            own = {"start_new_session": True, "preexec_fn": programs.take_terminal}
            self.process = subprocess.Popen([*programs.COMMAND, *arguments], **files, **own)
        else:
            self.process = programs.start(*arguments, **files, terminal=True)
        os.close(theirs)
        self.child = fdspawn(
            ours,
            encoding="utf-8",
            codec_errors="replace",  # at ^C a terminal drops what waits, in mid-character too
            timeout=PATIENCE,
        )

    def text(self) -> str:
        """Return the scrollback and the screen."""
        wide = range(self.screen.columns)
        past = ("".join(row[x].data for x in wide) for row in self.screen.history.top)
        return "\n".join(row.rstrip() for row in [*past, *self.screen.display]).rstrip()

    def wait(self, met: Callable[[str], bool]) -> str:
        """Read until the text is as wanted; return it."""
        end = time.monotonic() + PATIENCE
        while not met(self.text()):
            assert time.monotonic() < end, f"waited in vain; the screen:\n{self.text()}"
            try:
                self._feed(self.child.read_nonblocking(65536, timeout=0.2))
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                assert met(self.text()), f"it ended:\n{self.text()}"
        return self.text()

    def _feed(self, output: str) -> None:
        self.raw += output
        if ASKED in output:
            os.write(self.child.fileno(), self.answer)
        self.stream.feed(output)

    def prompt(self) -> str:
        """Wait until it is the person's turn."""
        return self.wait(lambda text: text.endswith("\n>"))

    def type(self, text: str) -> str:
        """Send a line; return what is there when it is answered."""
        return self.type_bytes(text.encode())

    def type_bytes(self, line: bytes) -> str:
        """Send a line that may be no UTF-8; return what is there when it is answered."""
        before = self.text().count("\n>")
        os.write(self.child.fileno(), line + ENTER.encode())
        return self.wait(lambda now: now.count("\n>") > before and now.endswith("\n>"))

    def saved(self) -> list[dict[str, str]]:
        """Return the conversation, as /save writes it."""
        file = self.home / "talk.json"
        file.unlink(missing_ok=True)
        self.type("/save talk.json")
        messages: list[dict[str, str]] = json.loads(file.read_text())["messages"]
        return messages

    def end(self) -> int:
        """Wait for the end; return the exit code."""
        try:
            while True:
                self._feed(self.child.read_nonblocking(65536, timeout=PATIENCE))
        except pexpect.EOF:
            return self.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(cli_model.save(tmp_path_factory.mktemp("model")))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def make(*arguments: str, **options: Any) -> Program:
        started.append(Program(tmp_path, *arguments, **options))
        return started[-1]

    yield make
    for program in started:
        program.process.kill()
        program.process.wait()
        program.child.close()


def test_a_conversation(model: str, start: Callable[..., Program]) -> None:
    chat = start("-m", model, "--max-new-tokens", "41")
    reply = clean(cli_model.said(41)).strip().replace("\n* ", "\n• ")
    header = chat.prompt()
    for part in ("nfox", "auto", "lossless", "try:", "/help"):
        assert part in header
    assert "takes " not in header and "template" not in header
    assert "guessed ahead" not in header
    first = chat.type("hello")
    assert bare(reply) in bare(first) and first.count("guessed ahead and accepted") == 1
    assert "cut at 41 tokens" in chat.text()
    assert "took back: hello" in chat.type("/undo")
    assert "nothing to answer again" in chat.type("/regen")
    # A paste of several lines is one message, and so is what Ctrl-J joins.
    chat.type("\x1b[200~one\r\ntwo\nthree\x1b[201~")
    chat.type(f"four{CTRL_J}five")
    said = chat.saved()
    assert [message["role"] for message in said] == ["user", "assistant"] * 2
    assert [said[0]["content"], said[2]["content"]] == ["one\ntwo\nthree", "four\nfive"]
    assert said[1]["content"] == cli_model.said(41)
    assert chat.type("/regen").count("guessed ahead") == 1, "once in a chat"
    assert chat.saved() == said
    chat.type_bytes(b"caf\xe9")
    assert chat.saved()[-2]["content"] == "caf\ufffd"
    chat.type("/reset")
    assert chat.saved() == []
    (chat.home / "mine.json").write_text(json.dumps(said))
    assert "loaded 4 messages" in chat.type("/load mine.json")
    assert [(m["role"], m["content"]) for m in chat.saved()] == [
        (m["role"], m["content"]) for m in said
    ]
    chat.type("once more")
    chat.child.send(CTRL_D)
    assert chat.end() == 0
    later = start("-m", model, "--resume")
    assert "loaded 6 messages" in later.prompt()
    assert "user: once more" in later.text()


@pytest.mark.parametrize("background", [b"ffff/ffff/dddd", b"1e1e/1e1e/1e1e"])
def test_colours_go_by_the_background(
    background: bytes, model: str, start: Callable[..., Program]
) -> None:
    answer = b"\x1b]11;rgb:%s\x1b\\typed\x08\x08\x08ahead%sof it" % (background, ATTRIBUTES)
    env = {"COLORTERM": "truecolor", "COLORFGBG": "0;7"}
    chat = start("-m", model, "--max-new-tokens", "41", answer=answer, **env)
    chat.wait(lambda text: text.endswith("> tyaheadof it"))
    chat.type("")
    accepted = "0;97;159" if background.startswith(b"f") else "86;180;233"
    assert f"\x1b[4;38;2;{accepted}m" in chat.raw
    assert chat.saved()[0]["content"] == "tyaheadof it"


def test_mistakes_are_told_and_the_talk_goes_on(model: str, start: Callable[..., Program]) -> None:
    chat = start("-m", model, "--max-new-tokens", "9", "--max-context", "128")
    chat.prompt()
    chat.type("hello")
    (chat.home / "broken.json").write_text("[1, 2")
    (chat.home / "other.json").write_text('{"weather": "fine"}')
    for typed, answer in (
        ("/load nowhere.json", "No such file"),
        ("/load broken.json", "not JSON"),
        ("/load other.json", "not a conversation"),
        ("/save other.json", "choose another name"),
        ("/save", "which file?"),
        ("/regn", "did you mean /regen?"),
        ("/method warp", "unknown method"),
        ("/method spec", "needs a draft model"),
        ("/template nowhere", "no conversation template"),
        ("/set colour=red", "no setting 'colour'"),
        ("/set temperature=hot", "expected a number"),
        ("/set temperature=-1", "temperature cannot be -1.0"),
    ):
        assert answer in chat.type(typed).rpartition(f"> {typed}")[2]
    # Too long a message is refused, and stands in the input line again.
    chat.child.send("x" * 150 + ENTER)
    text = chat.wait(lambda now: "the context holds 128" in now and now.endswith("xxx"))
    assert "shorten it" in text.rpartition("the context holds")[2]
    chat.child.send(CTRL_C)
    chat.wait(lambda now: now.endswith("\n>"))
    assert chat.saved()[0]["content"] == "hello"
    chat.child.send("/exit" + ENTER)
    assert chat.end() == 0


def test_ctrl_c_ends_the_reply_and_nothing_else(model: str, start: Callable[..., Program]) -> None:
    chat = start("-m", model, "--max-new-tokens", "3900", columns=60)
    chat.prompt()
    chat.child.send("hello" + ENTER)
    chat.wait(lambda now: "tok/s" in now and "^C stops" in now and "then." in now)
    chat.screen.resize(24, 70)
    termios.tcsetwinsize(chat.child.fileno(), (24, 70))
    chat.child.send(CTRL_C)
    text = chat.wait(lambda now: "stopped" in now and now.endswith("\n>"))
    assert "^C" not in text.rpartition("stopped")[0].rpartition("> hello")[2]
    said = chat.saved()
    assert len(said[1]["content"]) > 20
    assert cli_model.said(3900).startswith(said[1]["content"].rstrip("\ufffd"))
    chat.type("/set max_new_tokens=5")
    chat.type("/continue")
    longer = chat.saved()[1]["content"]
    assert longer.startswith(said[1]["content"].rstrip("\ufffd"))
    assert longer != said[1]["content"] and len(chat.saved()) == 2
    chat.type("more")
    assert chat.saved()[1]["content"] == longer
    # At the prompt it clears the line, and says once how to leave.
    chat.child.send("half a thou")
    chat.wait(lambda now: now.endswith("half a thou"))
    chat.child.send(CTRL_C)
    assert "^D or /exit leaves" in chat.prompt()


def test_a_long_reply_without_colour(model: str, start: Callable[..., Program]) -> None:
    chat = start("-m", model, "--max-new-tokens", "451", columns=60, NO_COLOR="1")
    chat.prompt()
    chat.type("the quick brown dog")
    text = chat.text().partition("brown dog")[2].rpartition("\n>")[0].rpartition("\n")[0]
    text, legend, _ = text.partition("\nguessed ahead and accepted")
    assert legend, "what the marks mean follows the first reply"
    assert bare(text) == bare(clean(cli_model.said(451)))
    assert "\x1b[4m" in chat.raw
    reply = chat.raw.partition("brown dog")[2]
    assert "38;" not in reply and "\x1b[31m" not in reply and "\x1b]" not in reply
    chat.child.send("/exit" + ENTER)
    assert chat.end() == 0


def test_no_chat_without_a_terminal_to_write_on(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with tempfile.TemporaryFile() as piped, tempfile.TemporaryFile() as told:
        process = programs.start(stdin=theirs, stdout=piped, stderr=told, terminal=True)
        os.close(theirs)
        assert process.wait(PATIENCE) == 2
        told.seek(0)
        assert b"stdout is not a terminal" in told.read()
    os.close(ours)


def test_plain_lines_for_plain_terminals(model: str, start: Callable[..., Program]) -> None:
    chat = start("-m", model, "--max-new-tokens", "9", "--provenance", "brackets", TERM="dumb")
    chat.prompt()
    assert "⟨" in chat.type("the quick brown dog")
    assert "\x1b" not in chat.raw
    chat.type_bytes(b"caf\xe9 \xed\xa0\x80")
    assert chat.saved()[2]["content"] == "caf\ufffd \ufffd\ufffd\ufffd"
    chat.child.send(CTRL_D)
    assert chat.end() == 0


@pytest.mark.skipif(not TARGET.is_dir(), reason="the embedded model is not there")
def test_the_embedded_model(start: Callable[..., Program], tmp_path: Path) -> None:
    imported = tmp_path / "imported"
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, sys\n"
        f"atexit.register(lambda: open({str(imported)!r}, 'w').write(' '.join(sys.modules)))"
    )
    chat = start("-v", real=True, PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}")
    assert "the embedded model" in chat.prompt()
    assert "nfox" in chat.type("who are you?").rpartition("who are you?")[2]
    assert "ms/step" in chat.text()
    assert "x measured" in chat.type("/compare")
    assert "identical: " in chat.type("/prove")
    assert "lookup: its guesses take no time" in chat.type("/why")
    chat.child.send(CTRL_D)
    assert chat.end() == 0
    # Each of these takes as long to import as the model to load, and answers nothing.
    modules = set(imported.read_text().split())
    assert "torch" in modules and not UNNEEDED & modules
