"""The README is typed, line after line, by somebody who has just installed nfox.

Its models are tiny ones under their names, see `stand_ins`, and its chats are asked in a terminal.
"""

from __future__ import annotations

import ast
import re
import shlex
import signal
from pathlib import Path

import httpx
import programs
import pytest
import servers
import stand_ins
from chat_terminal import chatting
from documents import ROOT, blocks, typed

README, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
INDEX = "https://download.pytorch.org/whl/cpu"
ELSEWHERE = {
    "git clone URL nfox && cd nfox": "the tests run in a clone",
    "pip install -e .": "with what tests need it is the next line but one",
    f"pip install 'torch<2.14' --index-url {INDEX}": "there is no network",
    "pip install -e '.[dev]' && pytest": ".ci/run begins with it, and runs this test thereby",
}
"""Lines that this test does not run, and why."""
SHORTER = {"train": ("--own_conversations", "4", "--own_tokens", "8")}
"""What is added behind a command, by its first word: 4,000 conversations would take an hour."""
SHOWN = {
    "/race none lookup auto": b"identical to none",
    "/steps": b"accepted",
    "/why": b"plain decoding",
    "/prove": b"identical: ",
    "/help": b"/race",
    "/resume": b"Why is the sky blue?",
}
"""What the commands of the chat that the README names show, among other things."""
EMBEDDED = "the embedded model"
QUESTION = "Why is the sky blue?"


class Newcomer:
    """Types lines in one folder, and looks at what comes of them.

    Args:
        home: the folder of everything.
    """

    def __init__(self, home: Path) -> None:
        self.home, self.work = home, home / "work"
        self.work.mkdir()
        self.own = {**stand_ins.lay_out(home / "home"), "XDG_STATE_HOME": str(home / "state")}
        self.env = {**programs.ENVIRONMENT, **self.own}
        self.model = EMBEDDED

    def type(self, line: str) -> None:
        """Run a line as it stands, but for what makes it short."""
        name, *words = shlex.split(line.replace("NAME", stand_ins.TARGET))
        assert name == "nfox"
        words += SHORTER.get("".join(words[:1]), ())
        if not words or words[0].startswith("-"):
            self.chat(words)
        elif words[0] == "serve":
            self.serve(words)
        else:
            options = {"cwd": self.work, "env": self.env, "prepare": "stand_ins:find"}
            done = programs.run(*words, **options)
            assert done.returncode == 0, (line, done.stderr)
            assert done.stdout, line
            if words[0] == "get":  # `nfox` starts with it from then on
                self.model = words[1]

    def chat(self, words: list[str]) -> None:
        """Ask, and have the answer decoded again plainly; the first time, see all the rest."""
        embedded = not words and self.model == EMBEDDED
        with chatting(self.home, *words, prepare="stand_ins:find", **self.own) as chat:
            header = chat.until_prompt().decode()
            assert all(name in header for name in words[1::2] or [self.model]), header
            assert b"tok/s" in chat.type(QUESTION)
            for command in SHOWN if embedded else ("/prove",):
                if command == "/resume":
                    chat.type("/reset")  # there is no other conversation to go on with
                assert SHOWN[command] in chat.type(command), command

    def serve(self, words: list[str]) -> None:
        """Ask a server, and tell it to end."""
        options = {"env": self.env, "prepare": "stand_ins:find"}
        asked = {"messages": [{"role": "user", "content": QUESTION}]}
        with servers.nfox(self.work, *words, **options) as server:
            page = httpx.get(server.url)
            assert page.status_code == 200 and "text/html" in page.headers["content-type"]
            answer = httpx.post(f"{server.url}/v1/chat/completions", json=asked).json()
            assert answer["choices"][0]["message"]["content"]
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(60) == -signal.SIGTERM, server.log.read_text()


@pytest.mark.slow
def test_every_line_does_what_the_readme_says(tmp_path: Path) -> None:
    newcomer = Newcomer(tmp_path)
    for line in typed(README):
        if line not in ELSEWHERE:
            newcomer.type(line)
    assert newcomer.model == "smollm2"


@pytest.mark.parametrize("path", [README, CHINESE], ids=lambda path: path.name)
def test_its_python_prints_an_answer(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_ins.lay_out(tmp_path / "home")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    [block] = blocks(path, "python")
    exec(compile(block, path.name, "exec"), {})
    assert capsys.readouterr().out.strip()


def test_both_languages_say_the_same_lines() -> None:
    lines, theirs = list(typed(README)), list(typed(CHINESE))
    assert lines == theirs and set(ELSEWHERE) < set(lines)
    programs_of = [ast.dump(masked(path)) for path in (README, CHINESE)]
    assert programs_of[0] == programs_of[1]


def masked(path: Path) -> ast.Module:
    """Return the program in a document with its question left out, which is in its language."""
    [block] = blocks(path, "python")
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and str(node.value).endswith(("?", "\uff1f")):
            node.value = QUESTION
    return tree


def test_every_command_of_the_chat_is_typed() -> None:
    assert set(re.findall(r"`(/[^`]+)`", README.read_text())) == set(SHOWN)
