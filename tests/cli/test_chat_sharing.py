"""What leaves the chat: exported conversations, and the clipboard."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from chat_app import contents, do
from terminals import Tty

from nfox import Message
from nfox.cli.chat.app import ChatApp
from nfox.cli.chat.commands import registry
from nfox.cli.chat.exported import ExportedConversation, export
from nfox.controls import sanitize
from nfox.errors import UsageError
from nfox.text.pieces import text_of


class Page(HTMLParser):
    """The texts of a page by the class they stand in, and its tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.classes: list[str] = []
        self.texts: list[str] = []
        self.marked: list[tuple[str, str]] = []
        self.tags: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag in ("div", "span", "h2", "footer"):
            self.classes.append(dict(attrs).get("class") or tag)
            if self.classes[-1] == "text":
                self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("div", "span", "h2", "footer"):
            self.classes.pop()

    def handle_data(self, data: str) -> None:
        if "text" in self.classes:
            self.texts[-1] += data
            self.marked.append((self.classes[-1], data))


def test_a_page_has_every_word_and_marks_what_was_drafted(app: ChatApp) -> None:
    do(app, "/system be <b>brief</b> & kind")
    do(app, "hello <script>alert(1)</script>")
    do(app, "and then?")
    assert do(app, "/export talk.html") == "the conversation is in talk.html\n"
    page = Page(Path("talk.html").read_text(encoding="utf-8"))
    assert page.texts == [sanitize(text) for text in contents(app)]
    assert page.tags.isdisjoint({"script", "b"})
    pieces = [p for pieces in app.replies.pieces(app.conversation.turns) for p in pieces]
    accepted = "".join(p.text for p in pieces if p.source == "accepted")
    assert accepted and "".join(text for mark, text in page.marked if mark == "a") == sanitize(
        accepted
    )


def test_the_sources_are_those_of_the_replies_that_there_are(app: ChatApp) -> None:
    """Whatever became of turns: their pieces are known, and make up their text."""
    do(app, "/set max_new_tokens=28")  # which never ends inside a character
    steps = ("hello", "again", "/regen", "/undo", "more", "/continue", "/system x", "/continue")
    for step in steps:
        do(app, step)
        turns = app.conversation.turns
        for turn, pieces in zip(turns, app.replies.pieces(turns), strict=True):
            assert text_of(pieces) == (turn.content if turn.role == "assistant" else "")
    do(app, "/set max_new_tokens=24")
    do(app, "/regen")
    assert contents(app)[-1].endswith("\ufffd")  # and goes on with the rest of the character
    do(app, "/continue")
    assert (
        "\ufffd" not in contents(app)[-1] and app.replies.pieces(app.conversation.turns)[-1] == []
    )
    app.conversation.messages[-1] = Message("assistant", "something else")
    assert app.replies.pieces(app.conversation.turns)[-1] == []


def test_json_is_read_again(app: ChatApp) -> None:
    do(app, "hello")
    do(app, "/export talk.json")
    [_, reply] = json.loads(Path("talk.json").read_text(encoding="utf-8"))["messages"]
    assert sum(length for length, _ in reply["made"]["sources"]) == len(reply["content"])
    before = app.conversation.messages
    do(app, "/reset")
    do(app, "/load talk.json")
    assert app.conversation.messages == before and before[-1].ids


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ("plain", "plain"),
        ("```py\nx = 1\n```", "```py\nx = 1\n```"),
        ("see\n````\nx = 1", "see\n````\nx = 1\n````"),
        ("```\na\n```\n\n~~~\nb\n```", "```\na\n```\n\n~~~\nb\n```\n~~~"),
        ("a\x1b[31mb", "a[31mb"),
    ],
)
def test_a_code_block_that_was_cut_does_not_swallow_the_next_turn(text: str, closed: str) -> None:
    messages = [Message("user", "hi"), Message("assistant", text), Message("user", "and?")]
    written = export(ExportedConversation(messages, "org/fox", ""), "md")
    assert written == f"# hi\n\n## You\n\nhi\n\n## org/fox\n\n{closed}\n\n## You\n\nand?\n"


def test_titles_are_one_short_line(app: ChatApp) -> None:
    messages = [Message("user", "\n" + "long  words " * 20 + "\nand a file")]
    first = export(ExportedConversation(messages, "fox", ""), "md").splitlines()[0]
    assert first.startswith("# long words long") and len(first) <= 63 and first.endswith("…")
    assert export(ExportedConversation(messages, "fox", "", title="A talk"), "md")[:8] == "# A talk"


def test_nothing_is_overwritten_by_an_export(app: ChatApp) -> None:
    with pytest.raises(UsageError, match="nothing to export"):
        do(app, "/export talk.md")
    do(app, "hello")
    Path("notes.md").write_text("mine")
    for line, wrong in {
        "/export": "which file",
        "/export notes.md": "notes.md exists",
        "/export talk.pdf": r"expected a file that ends in \.md, \.json, \.html",
        "/export nowhere/talk.md": "no folder nowhere",
        "/export ~nosuchuser/x.md": "no such home",
        "/export a\0b.md": "null",
    }.items():
        with pytest.raises(UsageError, match=wrong):
            do(app, line)
    assert Path("notes.md").read_text() == "mine"


def test_a_conversation_is_saved_again_where_it_was_and_over_no_other(app: ChatApp) -> None:
    do(app, "hello")
    assert do(app, "/save talk.json") == do(app, "/save talk.json")
    Path("list.json").write_text(json.dumps([{"role": "user", "content": "mine"}]))
    before = Path("talk.json").read_bytes()
    for other in ("/reset", "/load list.json"):
        do(app, other)
        with pytest.raises(UsageError, match=r"^talk\.json exists$") as error:
            do(app, "/save talk.json")
        assert error.value.hint == "choose another name, or remove it first"
    assert Path("talk.json").read_bytes() == before
    assert "saved 1 message in list.json" in do(app, "/save list.json")
    do(app, "/load talk.json")
    do(app, "more")
    assert "saved 4 messages" in do(app, f"/save {Path('talk.json').absolute()}")


def test_paths_are_completed(app: ChatApp) -> None:
    Path("my talks").mkdir()
    for name in ("my talks/one two.md", "my talks/one.json", ".hidden.md", "other.txt"):
        Path(name).touch()

    def completed(typed: str) -> list[str]:
        return list(registry.complete(app, typed))

    assert completed("/export my talks/one ") == ["two.md"]
    assert completed("/export ") == ["my talks/"] and completed("/export .h") == [".hidden.md"]
    assert completed("/load my talks/o") == ["talks/one.json"]
    assert completed("/save t") == []
    Path("small.gguf").touch()
    Path("terse.json").touch()
    assert completed("/model sm") == ["small.gguf", "smollm2"]
    assert completed("/template ters") == ["terse.json"]
    assert completed("/adapter m") == ["my talks/"] and completed("/adapter sm") == []


@pytest.fixture
def desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the only programs that there are; no desktop is running."""
    for name in ("TMUX", "WAYLAND_DISPLAY", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def tool(folder: Path, name: str, script: str) -> None:
    """Write a program that notes how it was called, and does what a script says."""
    (folder / name).write_text(f'#!/bin/sh\necho "$@" > {name}.called\n{script}\n')
    (folder / name).chmod(0o755)


def test_the_last_reply_is_copied_by_the_tool_of_the_desktop(
    app: ChatApp, desktop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="no reply yet"):
        do(app, "/copy")
    do(app, "hello")
    text = "<think>so</think>\n\nüber \x1b[31m🦊\nand on\n"
    app.conversation.messages[-1] = Message("assistant", text)
    with pytest.raises(UsageError, match="no clipboard here"):
        do(app, "/copy")
    tool(desktop, "xclip", "/bin/cat > taken")
    tool(desktop, "wl-copy", "exit 1")
    with pytest.raises(UsageError, match="no clipboard here"):
        do(app, "/copy")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert do(app, "/copy") == "copied 2 lines, 17 characters by xclip\n"
    assert Path("taken").read_text(encoding="utf-8") == "über [31m🦊\nand on"
    assert Path("xclip.called").read_text() == "-selection clipboard\n"
    assert Path("wl-copy.called").exists()
    tool(desktop, "clip.exe", "/bin/cat > taken")
    assert do(app, "/copy") == "copied 2 lines, 17 characters by xclip and clip.exe\n"
    assert Path("taken").read_bytes().decode("utf-16") == "über [31m🦊\nand on"
    assert contents(app)[-1] == text


def test_the_last_block_of_code_is_copied(app: ChatApp, desktop: Path) -> None:
    tool(desktop, "pbcopy", "/bin/cat > taken")
    do(app, "hello")
    with pytest.raises(UsageError, match="no block of code"):
        do(app, "/copy code")
    for text, code in {
        "```\nfirst\n```\n\nand\n\n```py\nx = 1\n\ny = 2\n```\nDone.": "x = 1\n\ny = 2",
        "~~~~\n```\ninside\n```\n~~~~": "```\ninside\n```",
        "1. do\n\n   ```sh\n   ls\n   ```": "ls",
        "```py\nnever closed": "never closed",
    }.items():
        app.conversation.messages[-1] = Message("assistant", text)
        do(app, "/copy code")
        assert Path("taken").read_text() == code
    with pytest.raises(UsageError, match="expected code or nothing"):
        do(app, "/copy all")
    assert list(registry.complete(app, "/copy c")) == ["code"]


@pytest.mark.parametrize("terminal", ["xterm-256color", "dumb"])
def test_a_terminal_is_asked_to_copy(
    terminal: str, app: ChatApp, desktop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", terminal)
    do(app, "hello")
    monkeypatch.setattr(app.screen.console, "_file", Tty())
    if terminal == "dumb":
        with pytest.raises(UsageError, match="no clipboard here"):
            do(app, "/copy")
        return
    registry.handle(app, "/copy")
    sequence = app.screen.console.file.getvalue()
    assert sequence.startswith("\x1b]52;c;") and sequence.endswith("\x07")
    copied = base64.b64decode(sequence[7:-1]).decode()
    assert copied == sanitize(contents(app)[-1]).strip()
    app.notes.file.seek(0)
    assert f"copied {len(copied.splitlines())} lines" in app.notes.file.read()
    app.notes.file.seek(0)
    assert "by the terminal (OSC 52), if it takes that" in app.notes.file.read()
