"""What the documents say can be typed, and what they point at is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from command_line import root
from documents import ROOT, commands

from nfox.cli.chat.commands.registry import registry
from nfox.cli.train.arguments import parse
from nfox.errors import NfoxError

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("nfox/*/**/README.md")])
LIVING = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]
"""A changelog tells of commands as they were."""
NEEDS = ("such file", "no file", "not found", "no model", "is not a", "there is no folder")


ALL_COMMANDS = sorted({(p.name, shlex.join(words)) for p in LIVING for words in commands(p)})


def read(command: Any, words: list[str], name: str = "nfox", parent: Any = None) -> None:
    """Let Typer read a command line, without running it."""
    context = command.make_context(name, list(words), parent=parent)
    rest = [*getattr(context, "_protected_args", ()), *context.args]
    if hasattr(command, "resolve_command") and rest:
        name, inner, rest = command.resolve_command(context, rest)
        read(inner, rest, name or "", context)


def test_there_are_commands_to_read() -> None:
    assert len(ALL_COMMANDS) > 60


@pytest.mark.parametrize(("document", "line"), ALL_COMMANDS)
def test_every_command_in_the_documents_is_read(
    document: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line)
    if not words:  # a chat
        return
    if words[:1] != ["train"] or len(words) < 3:
        read(root(), words)
        return
    for name in (word for word in words if word.endswith((".json", ".jsonl", ".yaml"))):
        Path(name).write_text('{"model_name_or_path": "m", "output_dir": "o"}')
    try:
        parse(words[1], words[2:], f"nfox {line}")
    except NfoxError as error:  # every option was known: what they name is not here
        assert any(words in error.message for words in NEEDS), error.message


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as they are made where it is shown."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"https?:|mailto:", target):
            continue
        place, _, anchor = target.partition("#")
        file = path.parent / place if place else path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md", "docs/chat.md"])
def test_every_command_of_the_chat_that_is_named_is_there(name: str) -> None:
    named = re.findall(r"`(/[a-z]+)\b[^/`]*`", (ROOT / name).read_text())
    assert named and set(named) <= set(registry())
