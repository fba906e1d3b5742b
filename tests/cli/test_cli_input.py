"""Text comes in by arguments and pipes: nothing in it ends a command with a foreign error."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import folder
import pytest
from typer.testing import CliRunner, Result

from nfox.cli.app import app
from nfox.cli.chat import input as chat_input
from nfox.cli.chat.type_ahead import drop_answers

if TYPE_CHECKING:
    from prompt_toolkit.input import PipeInput


def ask(*arguments: str, stdin: bytes = b"") -> Result:
    model = ("--model", str(folder.llama()), "--max-new-tokens", "4", "--dtype", "float32")
    return CliRunner().invoke(app, [*model, *arguments], input=stdin)


def test_what_is_no_character_is_asked_as_the_replacement_character() -> None:
    expected = ask("-p", "caf\ufffd")
    assert expected.exit_code == 0
    # A byte order mark comes along with "$(cat file)", too.
    for broken in (ask("-p", "\ufeffcaf\udce9"), ask(stdin=b"\xef\xbb\xbfcaf\xe9\n")):
        assert (broken.exit_code, broken.stdout) == (0, expected.stdout)
    system = [ask("--system", text, "-p", "x") for text in ("\ufeffcaf\udce9", "caf\ufffd")]
    assert [said.exit_code for said in system] == [0, 0]
    assert system[0].stdout == system[1].stdout


@pytest.mark.parametrize("data", ["hello".encode("utf-16"), b"\x7fELF\x02\x01\x01\0\xff\0"])
def test_what_is_no_text_is_refused_by_name(data: bytes) -> None:
    for arguments in ((), ("-p", "-"), ("--style", "programmatic")):
        refused = ask(*arguments, stdin=data)
        assert refused.exit_code == 2
        assert refused.stderr.startswith("nfox: error: stdin: ")
        assert "Traceback" not in refused.stderr


def test_a_line_that_is_broken_does_not_end_the_others() -> None:
    asked = [
        b'\xef\xbb\xbf{"role": "user", "content": "caf\xe9"}',
        b"\xff\xfe\0",
        json.dumps({"role": "user", "content": "cut \ud83d"}).encode(),
        json.dumps({"role": "system", "content": "cut \ud83d"}).encode(),
        b"[" * 100_000,
        b'{"role": "assistant", "content": "hello"}',
        b'{"role": "user", "content": null}',
        b'{"role": "developer", "content": "be brief"}',
        b'{"role": "user", "content": [{"type": "text", "text": "hello"}]}',
    ]
    done = ask("--style", "programmatic", stdin=b"\n".join(asked))
    events = [json.loads(line)["event"] for line in done.stdout.splitlines()]
    assert done.exit_code == 0
    assert [event for event in events if event != "delta"] == [
        "start", "end", "error", "end", "system", "error", "error", "error", "system", "end",
    ]  # fmt: skip


def test_what_the_terminal_answers_at_the_prompt_is_not_typed() -> None:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    with create_pipe_input() as keyboard:
        session: PromptSession[str] = PromptSession(input=keyboard, output=DummyOutput())
        drop_answers(session)
        keyboard.send_bytes(b"\x1b]11;rgb:1e1e/1e1e/2e2e\x1b\\a\x1b[?62;4c\x1b[Db\xff\r")
        assert session.prompt() == "b\udcffa"


class SignalAt:
    """Raises SIGINT at the n-th line that is run in prompt_toolkit's loop, or counts the lines."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.endswith(("application/application.py", "base_events.py")):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGINT)
        return self


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[PipeInput]:
    """Return the keys of a terminal that shows nothing."""
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    monkeypatch.setattr(chat_input, "reads_keys", lambda *, plain: True)
    monkeypatch.setattr(chat_input, "typed_early", lambda: b"")
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        yield keys


def test_a_long_message_that_was_refused_leaves_the_reason_in_sight(
    keyboard: PipeInput,
) -> None:
    told: list[str] = []
    read = chat_input.make_reader(
        lambda typed: (), plain=False, multiline=False, remember=False, say=told.append
    )
    for long, written in ((False, "one two"), (True, "word " * 200)):
        keyboard.send_text(f"{written}\r\r")
        assert read("") == written
        assert read(written.strip()) == ("" if long else written)
        assert told == ["the Up arrow brings your message back"] * long
    keyboard.send_text("\x1b[A\r")
    assert read("") == written
    keyboard.send_text("\r")
    assert read("of an editor\n" * 9) == "of an editor\n" * 9, "it was asked for"


def test_a_plain_line_shows_the_beginning_of_what_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prompts: list[str] = []
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("builtins.input", lambda prompt: prompts.append(prompt) or "")
    read = chat_input.make_reader(lambda typed: (), plain=True, multiline=False, remember=False)
    for start in ("short", "word " * 200):
        assert read(start) == start
    assert prompts[0] == "> [short] " and len(prompts[1]) <= 45 and prompts[1].endswith("...] ")


def test_an_interrupt_at_any_moment_of_a_prompt_leaves_one_that_works(
    keyboard: PipeInput,
) -> None:
    read = chat_input.make_reader(lambda typed: (), plain=False, multiline=False, remember=False)

    def said(number: int) -> int:
        """Return how many lines a prompt takes, where SIGINT comes at one of them."""
        trace = SignalAt(number)
        keyboard.send_text("first\r")
        sys.settrace(trace)
        try:
            assert read("") == "first"
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        keyboard.send_text("second\r")
        texts = [read("")]
        if texts == ["first"]:
            texts.append(read(""))
        assert texts[-1].endswith("second")
        return -trace.left

    lines = said(0)
    for number in range(1, lines, lines // 25):
        said(number)
