"""An interrupt ends what it comes in, wherever it comes, and nothing that follows."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import chat_app
import cli_model
import pytest

from nfox import Settings, load
from nfox.cli import ending
from nfox.cli.chat import repl
from nfox.cli.chat.app import ChatApp
from nfox.cli.chat.interrupt import SecondInterrupt, interruptible
from nfox.cli.ending import EndedBySignal, ending_well
from nfox.engine import Engine

FOREVER = 10_000_000  # calls


class Dying:
    """Raises a signal in its destructor, where Python prints and forgets what that leads to."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = cli_model.save(tmp_path_factory.mktemp("model"))
    return load(str(folder), method="none", settings=Settings(max_new_tokens=31))


@pytest.fixture
def app(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatApp]:
    monkeypatch.chdir(tmp_path)
    with ending_well():
        yield chat_app.make(engine)


def work() -> None:
    """Do what a long command does all the time."""
    for _ in range(FOREVER):
        abs_in_python(-1)


def abs_in_python(number: int) -> int:
    return abs(number)


def chat(app: ChatApp, command: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> str:
    """Chat: a command, another one, and then `/save`; return what was said."""
    handle, typed = repl.commands.handle, iter(["/command", "/next", "/save talk.json"])
    done: list[None] = []
    own: dict[str, Callable[[], object]] = {
        "/command": command,
        "/next": lambda: done.append(time.sleep(0.03)),
    }

    def handle_or_run(app: ChatApp, text: str) -> bool:
        if text not in own:
            return handle(app, text)
        own[text]()
        return True

    def read(start: str) -> str:
        if (line := next(typed, None)) is None:
            raise EOFError
        return line

    monkeypatch.setattr(repl.commands, "handle", handle_or_run)
    repl._chat(app, read, "hello")
    assert done and Path("talk.json").exists()
    return chat_app.said(app)


def test_an_interrupt_inside_a_destructor_ends_the_command_that_it_came_in(
    app: ChatApp, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = []

    def command() -> None:
        try:
            Dying()
            work()
        except KeyboardInterrupt:
            ended.append("at once")
            raise
        ended.append("late")

    assert "^D or /exit leaves" in chat(app, command, monkeypatch)
    assert ended == ["at once"]
    assert capfd.readouterr().err == ""


def test_an_interrupt_in_the_last_moment_of_a_command_does_not_cost_the_next(
    app: ChatApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat(app, Dying, monkeypatch)


def test_an_interrupt_while_an_interrupted_command_is_cleared_away_ends_nothing(
    app: ChatApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command() -> None:
        held = [Dying()]
        assert held
        raise KeyboardInterrupt

    chat(app, command, monkeypatch)


def test_an_interrupt_inside_the_destructor_of_a_reply_stops_the_reply(
    app: ChatApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = app.engine.model.target
    score, forwards = target.score, iter(range(99))

    def dying_at_the_third(*arguments: object) -> object:
        if next(forwards) == 2:
            Dying()
        return score(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(target, "score", dying_at_the_third)
    assert "stopped" in chat(app, lambda: None, monkeypatch)
    assert chat_app.contents(app) == ["hello", cli_model.said(3)]


def test_a_second_interrupt_inside_a_destructor_ends_the_program(engine: Engine) -> None:
    stream, before = engine.stream("hello"), signal.getsignal(signal.SIGINT)
    try:
        with ending_well(), pytest.raises(SecondInterrupt), interruptible(stream):
            signal.raise_signal(signal.SIGINT)
            Dying()
            work()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_wait_ends_too() -> None:
    with pytest.raises(KeyboardInterrupt), ending_well():
        Dying()
        threading.Event().wait(60)


def test_what_dies_in_a_destructor_is_another_one() -> None:
    class Holding:
        def __init__(self) -> None:
            self.held = Dying()

        def __del__(self) -> None:
            del self.held
            abs_in_python(-1)

    with pytest.raises(KeyboardInterrupt), ending_well():
        Holding()
        work()


def test_a_signal_inside_a_destructor_ends_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[int] = []
    monkeypatch.setattr(ending, "_end_by", ends.append)
    with pytest.raises(EndedBySignal), ending_well():
        Dying(signal.SIGTERM)
        work()
    assert ends == [signal.SIGTERM]


def test_any_other_error_inside_a_destructor_is_told_as_ever(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Failing:
        def __del__(self) -> None:
            raise ValueError("what fails")

    with ending_well():
        Failing()
        abs_in_python(-1)
    assert "what fails" in capsys.readouterr().err
