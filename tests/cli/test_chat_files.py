"""Files in messages."""

from __future__ import annotations

from pathlib import Path

import chat_app
import cli_model
import pytest
from chat_app import contents, do

from nfox import Settings, load
from nfox.cli.chat.app import ChatApp
from nfox.cli.chat.commands import registry
from nfox.engine import Engine
from nfox.errors import ContextError, NfoxError, UsageError

NOTES = "first line\n\n\tsecond 你好\n"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return load(str(cli_model.save(tmp_path_factory.mktemp("model"))), max_context=400)


@pytest.fixture
def app(engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ChatApp:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    engine.use("lookup", {"gamma": "8"})
    engine.use_settings(Settings(max_new_tokens=9))
    for name in ("notes.txt", "my notes.md", "sub/deep.py"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(NOTES, encoding="utf-8")
    return chat_app.make(engine)


def asked(app: ChatApp) -> str:
    return contents(app)[-2]


def block(name: str, text: str = NOTES, fence: str = "```") -> str:
    return f"\n\n{name}:\n{fence}\n{text.rstrip()}\n{fence}"


def test_a_file_goes_along_with_the_question(app: ChatApp) -> None:
    told = do(app, "/file notes.txt what does it say?")
    assert asked(app) == "what does it say?" + block("notes.txt")
    tokens = len(app.engine.model.tokenizer(NOTES.rstrip()).input_ids)
    assert told.startswith(f"notes.txt: {tokens} tokens\nThe quick brown")


def test_a_file_without_a_question_stands_in_the_next_line(app: ChatApp) -> None:
    for typed, line in {
        "/file notes.txt": "@notes.txt ",
        "/file my notes.md": '@"my notes.md" ',
        '/file "my notes.md"': '@"my notes.md" ',
    }.items():
        assert "tokens" in do(app, typed)
        assert app.next_input == line and contents(app) == []
    do(app, "/file my notes.md and then?")
    assert asked(app) == "and then?" + block("my notes.md")
    do(app, '/file "my notes.md" more')
    assert asked(app) == "more" + block("my notes.md")
    do(app, "/reset")
    do(app, "/file notes.txt " + "why " * 70)  # longer than a name can be
    assert asked(app).startswith("why why")


@pytest.mark.parametrize(
    ("typed", "message", "names"),
    [
        ("say @notes.txt", "say notes.txt", ["notes.txt"]),
        (
            "@notes.txt, or @sub/deep.py?",
            "notes.txt, or sub/deep.py?",
            ["notes.txt", "sub/deep.py"],
        ),
        ("(@notes.txt)", "(@notes.txt)", []),
        ("twice @notes.txt @notes.txt.", "twice notes.txt notes.txt.", ["notes.txt"]),
        ('see @"my notes.md"!', "see my notes.md!", ["my notes.md"]),
        ("@~/notes.txt", "~/notes.txt", ["~/notes.txt"]),
        ("me@notes.txt and @@notes.txt", "me@notes.txt and @notes.txt", []),
        ("a @ b @", "a @ b @", []),
        ("two\n@notes.txt\nlines", "two\nnotes.txt\nlines", ["notes.txt"]),
        ("//x @notes.txt", "/x notes.txt", ["notes.txt"]),
    ],
)
def test_a_path_in_a_message(app: ChatApp, typed: str, message: str, names: list[str]) -> None:
    told = do(app, typed)
    assert asked(app) == message + "".join(map(block, names))
    assert [line.split(":")[0] for line in told.splitlines()[: len(names)]] == names


def test_what_is_no_file_is_left_as_typed(app: ChatApp) -> None:
    told = do(app, "@property and @sub and @nowhere.txt, @property")
    assert asked(app) == "@property and @sub and @nowhere.txt, @property"
    note = "no file: @property @sub @nowhere.txt, left as typed (@@ is a plain @)"
    assert told.splitlines()[0] == note
    assert "no file: @0 @1 @2 @3 and 5 more, left" in do(app, " ".join(f"@{n}" for n in range(9)))


def test_backticks_in_a_file_do_not_end_it(app: ChatApp) -> None:
    text = "```py\nx\n```\n````\n"
    Path("code.md").write_text(text)
    do(app, "@code.md")
    assert asked(app) == "code.md" + block("code.md", text, "`````")
    Path("empty").touch()
    assert do(app, "@empty").startswith("empty: 0 tokens\n")


def test_what_is_no_text_or_too_large_is_refused_and_the_message_stands_again(
    app: ChatApp,
) -> None:
    Path("picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    Path("large.txt").write_text("a" * 6401)
    Path("long.txt").write_text("a" * 500)
    Path("secret").touch()
    for name, wrong in {
        "picture.png": "picture.png: not a text",
        "large.txt": "large.txt is too large: 6,401 bytes",
        "long.txt": "long.txt is too large: 500 tokens",
        "/dev/zero": "not a regular file",
    }.items():
        with pytest.raises(UsageError, match=wrong) as error:
            do(app, f"say @{name} now")
        assert error.value.hint
        assert app.next_input == f"say @{name} now" and contents(app) == []
        with pytest.raises(UsageError, match=wrong):
            do(app, f"/file {name} what?")
    for line, wrong in {
        "/file": "which file",
        "/file sub what": "sub is a folder",
        "/file nowhere.txt what": "No such file",
        "/file a\0b": "null",
    }.items():
        app.next_input = ""
        with pytest.raises(NfoxError, match=wrong):
            do(app, line)
        assert app.next_input == (line if line != "/file" else "")


def test_what_does_not_fit_stands_in_the_line_as_it_was_typed(app: ChatApp) -> None:
    Path("long.txt").write_text("a" * 300)
    do(app, "hello " * 20)
    for line in ("@long.txt what", "/file long.txt what", "//x " + "a" * 400):
        with pytest.raises(ContextError):
            do(app, line)
        assert app.next_input == line


def test_mentions_are_completed(app: ChatApp) -> None:
    def completed(typed: str) -> list[str]:
        return list(registry.complete(app, typed))

    assert completed("say @no") == ["@notes.txt"]
    assert completed("say\n@sub/") == ["@sub/deep.py"]
    assert completed("@m") == ['@"my notes.md"'] and completed('@"my n') == ['notes.md"']
    assert completed('x @"no') == ['@"notes.txt"'] and completed("@s") == ["@sub/"]
    assert completed("me@no") == completed("@no x") == completed("hello") == []
    assert completed("/file my n") == ["notes.md"] and completed("/file sub/") == ["sub/deep.py"]
