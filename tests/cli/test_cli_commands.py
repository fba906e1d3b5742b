"""The commands of the chat, and how it takes what goes wrong."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cli_model
import pytest
import typer
from rich.console import Console

from nfox import Message, Session, Settings, load
from nfox.cli.chat import events, input, repl
from nfox.cli.chat.app import Talk
from nfox.cli.chat.commands import registry as commands
from nfox.cli.chat.commands.settings import changed
from nfox.cli.chat.interrupt import interruptible
from nfox.cli.chat.repl import chat_loop
from nfox.cli.display.header import print_header
from nfox.cli.display.theme import make_screen
from nfox.cli.options.groups import DisplayArguments, SessionArguments
from nfox.decoding.costs import Costs
from nfox.drafters import names
from nfox.engine import Chat
from nfox.errors import ContextError, NfoxError, UsageError
from nfox.reply import Reply, Update

FASTCHAT = ("!!exit", "!!reset", "!!remove", "!!regen", "!!save", "!!load")


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Chat:
    return load(str(cli_model.save(tmp_path_factory.mktemp("model"))))


@pytest.fixture
def talk(chat: Chat, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Talk:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    chat.use()
    chat.settings = Settings(max_new_tokens=31)
    chat.reply = Reply("")
    return make(chat)


def make(chat: Chat, **options: object) -> Talk:
    display = replace(DisplayArguments(), **options)  # type: ignore[arg-type]
    file = io.StringIO()
    talk = Talk(Session(chat), make_screen(display, file), display)
    talk.notes = Console(file=file, width=100, highlight=False)
    return talk


def said(talk: Talk) -> str:
    """Return what was printed since the last call."""
    file = talk.screen.console.file
    assert isinstance(file, io.StringIO)
    text = file.getvalue()
    file.seek(0)
    file.truncate()
    return text


def do(talk: Talk, text: str) -> str:
    assert commands.take(talk, text)
    return said(talk)


def contents(talk: Talk) -> list[str]:
    return [message.content for message in talk.session.messages]


def test_one_registry_drives_everything(talk: Talk) -> None:
    listed = do(talk, "/help")
    for name, command in commands.registry().items():
        assert name in listed and command.help and command.help.endswith(".")
    assert set(FASTCHAT) < set(commands.registry())
    first_words = {command.names[0] for command in commands.registry().values()}
    assert set(commands.complete(talk, "/")) > first_words


def test_completion(talk: Talk) -> None:
    Path("talk.json").touch()
    assert list(commands.complete(talk, "/reg")) == ["/regen"]
    assert list(commands.complete(talk, "/load t")) == ["talk.json"]
    assert list(commands.complete(talk, "/set temp")) == ["temperature="]
    assert set(commands.complete(talk, "/method ")) == {*names(), "auto"}
    assert not list(commands.complete(talk, "hello /"))
    assert not list(commands.complete(talk, "/no such"))


def test_what_is_a_message_and_what_is_not(talk: Talk) -> None:
    assert do(talk, "   ") == ""
    with pytest.raises(UsageError) as error:
        do(talk, "/regne")
    assert "/regen" in error.value.hint
    assert contents(talk) == []
    do(talk, "//etc/hosts is a file")
    assert contents(talk)[0] == "/etc/hosts is a file"
    assert not commands.take(talk, "!!exit")


def test_a_cut_reply_goes_on(talk: Talk) -> None:
    with pytest.raises(UsageError, match="no reply"):
        do(talk, "/continue")
    do(talk, "/set max_new_tokens=9")
    do(talk, "hello")
    shown = do(talk, "/continue")
    assert shown.startswith(" [red]") and "says" not in shown  # only what is new
    assert contents(talk) == ["hello", cli_model.said(18)]
    assert "identical output: yes" in do(talk, "/compare")
    do(talk, "/continue")
    do(talk, "more")
    assert contents(talk) == ["hello", cli_model.said(27), "more", cli_model.said(9)]


def test_every_turn_is_kept_and_the_last_talk_comes_back(chat: Chat, talk: Talk) -> None:
    with pytest.raises(UsageError, match="no last conversation"):
        do(talk, "/load")
    do(talk, "hello")
    assert not Path("state/nfox/last.json").exists()  # it was not asked for
    talk.kept = True
    for question in ("one", "two"):
        do(talk, question)
    before = talk.session.messages
    later = make(chat)
    assert "loaded 6 messages" in do(later, "/load")
    assert later.session.messages == before
    [file] = Path("state/nfox").iterdir()
    assert file.stat().st_mode & 0o077 == 0
    file.unlink()
    file.mkdir()  # a place that cannot be written to is told once, and the chat goes on
    assert "not kept" in do(talk, "three")
    assert "not kept" not in do(talk, "four")
    assert len(contents(talk)) == 10


@pytest.mark.parametrize("kept", [True, False])
def test_a_talk_is_resumed(
    kept: bool,
    talk: Talk,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def talking(*typed: str, **options: bool) -> None:
        said = iter(typed)

        def read(start: str) -> str:
            try:
                return next(said)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr(repl, "make_reader", lambda *a, **k: read)
        arguments = SessionArguments(no_input_history=not kept, **options)
        chat_loop(talk.chat, 0.0, DisplayArguments(), arguments)

    talking("hello", "/continue")
    talking("/save now.json", resume=True)
    saved = json.loads(Path("now.json").read_text())["messages"]
    assert len(saved) == (2 if kept else 0)
    assert ("no last conversation" in capsys.readouterr().err) is not kept


def test_settings_are_parsed_by_what_they_are() -> None:
    made = changed(
        Settings(), "temperature=0.5 top-k=3 max_new_tokens=9 stop='a\\nb' accept=typical"
    )
    assert (made.sampling.temperature, made.sampling.top_k) == (0.5, 3)
    assert (made.max_new_tokens, made.stop, made.accept) == (9, ("a\nb",), "typical")
    assert changed(made, "stop=").stop == ()
    for wrong in ("top_k=half", "colour=red", "top_k", "stop='a", "max_new_tokens=0", "top_p=2"):
        with pytest.raises(UsageError):
            changed(made, wrong)


def test_settings_in_mid_conversation(talk: Talk) -> None:
    do(talk, "hello")
    assert "max_new_tokens=3" in do(talk, "/set max_new_tokens=3")
    do(talk, "more")
    assert contents(talk)[3] == cli_model.said(3)
    assert "typical: not lossless" in do(talk, "/set temperature=1 accept=typical")
    assert "(typical)" not in do(talk, "/legend")  # nothing is marked in a file


def test_methods_in_mid_conversation(talk: Talk) -> None:
    for name in ("none", "jacobi", "lookup"):
        assert name in do(talk, f"/method {name}")
        do(talk, "hello")
        assert talk.chat.reply.method == name
    do(talk, "/method lookup gamma=2")
    assert "2" in talk.chat.drafter.describe()
    assert "lookup" in do(talk, "/method auto")
    assert set(contents(talk)[1::2]) == {cli_model.said(31)}
    for wrong in ("/method warp", "/method lookup gamma", "/method lookup colour=1"):
        with pytest.raises(NfoxError):
            do(talk, wrong)
    assert talk.chat.method == "lookup"


@pytest.mark.parametrize("name", ["lookup", "jacobi"])
def test_the_header_says_when_drafting_does_not_pay(chat: Chat, talk: Talk, name: str) -> None:
    flat, steep = Costs({1: 1.0, 32: 1.0}), Costs({1: 1.0, 2: 2.0, 32: 32.0})
    for costs, word in ((flat, False), (steep, True)):
        made = Chat(chat.model, chat.template, method=name, costs=costs)
        print_header(made, talk.screen, 1.0, verbose=True)
        shown = said(talk).replace("\n", " ")
        assert ("plain decoding, drafting does not pay on this machine" in shown) is word
        assert ("plain decoding" in events.start(made)["drafter"]) is word
        assert str(costs) in shown


def test_a_template_brings_what_ends_a_reply(talk: Talk) -> None:
    do(talk, "/template chatml")
    assert talk.chat.template.name == "chatml"
    assert set(talk.chat.template.stop_ids) <= talk.chat.stop_ids
    assert "tokenizer" in do(talk, "/template tokenizer")


def test_system_message(talk: Talk) -> None:
    assert "be kind" in do(talk, "/system be kind")
    do(talk, "hello")
    do(talk, "/reset")
    assert contents(talk) == ["be kind"]
    assert "be kind" in do(talk, "/system")


def test_nothing_is_overwritten_but_conversations(talk: Talk) -> None:
    do(talk, "hello")
    do(talk, "/save talk.json")
    do(talk, "/save talk.json")
    Path("notes.txt").write_text("mine")
    with pytest.raises(UsageError):
        do(talk, "/save notes.txt")
    assert Path("notes.txt").read_text() == "mine"


def test_numbers_and_steps(talk: Talk) -> None:
    for command in ("/stats", "/steps", "/compare"):
        with pytest.raises(UsageError):
            do(talk, command)
    do(talk, "the quick brown dog")
    numbers = do(talk, "/stats")
    for part in ("tok/s", "τ", "31 tok", "prefill", "ms/step", "by depth", "t(N)/t(1)"):
        assert part in numbers
    assert "emitted / steps" in do(talk, "/stats explain")
    steps = do(talk, "/steps")
    assert "·brown¹ ·fox·ᵀ" in steps
    assert "·dog" not in steps.split("·brown¹")[0]


def test_verbose_shows_steps_probabilities_and_trees(chat: Chat, talk: Talk) -> None:
    loud = make(chat, verbose=2)
    shown = do(loud, "the quick brown dog")
    assert "·brown¹" in shown and "✓ ·brown p=1.000" in shown and "p=0.000" in shown
    assert "refused" in shown and "ms/step" in shown
    chat.settings = replace(chat.settings, keep_logits=False)
    plain = make(chat, verbose=1, ascii=True)
    shown = do(plain, "the quick brown dog").partition("step ")[2]
    assert "_brown1 _fox_T" in shown
    assert not set(shown) & set("·τ✓✗…↵ᵀ")


def test_a_thought_that_was_cut_is_still_one(talk: Talk) -> None:
    for begun, inside in (("<think>so", True), ("<think>so</think>yes", False), ("no", False)):
        talk.asked = [Message("user", "<think>"), Message("assistant", begun, (1,))]
        assert talk._thinking() is inside
    talk.asked = talk.asked[:1]
    assert not talk._thinking()


def test_compare_measures_and_changes_nothing(talk: Talk) -> None:
    do(talk, "/set temperature=0.7 seed=5")
    do(talk, "hello")
    chat, before = talk.chat, contents(talk)
    kept = (chat.method, chat.drafter, chat.settings, chat.replies, chat.reply)
    do(talk, "/set temperature=0 max_new_tokens=2")
    do(talk, "/set temperature=0.7 max_new_tokens=31")
    told = do(talk, "/compare")
    assert "x measured" in told and "identical output: yes" in told
    assert (chat.method, chat.drafter, chat.settings, chat.replies, chat.reply) == kept
    assert contents(talk) == before
    do(talk, "more")
    assert contents(talk)[3] == cli_model.said(31)
    do(talk, "/method none")
    do(talk, "more")
    with pytest.raises(UsageError):
        do(talk, "/compare")


def test_a_full_context_is_told_before_and_refused_then(chat: Chat, talk: Talk) -> None:
    limit, chat.max_context = chat.max_context, 64
    try:
        assert "95% full" in do(talk, "twenty-four letters here")
        before = contents(talk)
        with pytest.raises(ContextError) as error:
            do(talk, "one more")
        assert "/undo" in error.value.hint
        assert talk.typed == "one more"
        assert contents(talk) == before
    finally:
        chat.max_context = limit


def test_what_got_no_answer_stands_in_the_line_again(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(messages: object) -> Iterator[Update]:
        talk.chat.reply = Reply("")
        yield from ()

    monkeypatch.setattr(talk.chat, "updates", silent)
    assert "before anything was said" in do(talk, "hello?")
    assert talk.typed == "hello?"
    assert contents(talk) == []


def test_the_first_ctrl_c_cancels_and_the_second_raises(chat: Chat) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptible(chat):
        os.kill(os.getpid(), signal.SIGINT)
        assert chat._cancelled.is_set()
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (RuntimeError("the roof is on fire"), 1)]
)
def test_the_conversation_outlives_the_program(
    error: BaseException,
    code: int,
    talk: Talk,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed = iter(["hello", "and then?"])
    monkeypatch.setattr(repl, "make_reader", lambda *a, **k: lambda start: next(typed))
    whole = talk.chat.updates

    def failing(messages: list[object]) -> Iterator[Update]:
        if len(messages) > 1:
            raise error
        yield from whole(messages)  # type: ignore[arg-type]

    monkeypatch.setattr(talk.chat, "updates", failing)
    with pytest.raises(typer.Exit) as left:
        chat_loop(talk.chat, 0.0, DisplayArguments(), SessionArguments())
    assert left.value.exit_code == code
    [file] = (Path("state") / "nfox").glob("conversation-*.json")
    saved = json.loads(file.read_text())["messages"]
    assert saved[1]["content"] == cli_model.said(31)
    assert str(file.name) in capsys.readouterr().err


def test_what_is_typed_is_remembered_unless_it_begins_with_a_space(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    history = input._history(True)
    for line in ("one", " secret", "two"):
        history.store_string(line)
    file = tmp_path / "nfox" / "input_history"
    assert "one" in file.read_text() and "secret" not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    input._history(False).store_string("three")
    assert "three" not in file.read_text()


def test_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    def reader(lines: list[str], multiline: bool) -> str:
        said = iter(lines)
        monkeypatch.setattr("builtins.input", lambda prompt: next(said))
        none: Callable[[str], list[str]] = lambda typed: []  # noqa: E731
        return input.make_reader(none, plain=True, multiline=multiline, remember=False)("")

    assert reader(["one"], False) == "one"
    assert reader(["one", "two", ""], True) == "one\ntwo"
