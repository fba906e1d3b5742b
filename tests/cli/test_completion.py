"""What a shell completes, and what it needs for that."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import root
from programs import COMMAND, ENVIRONMENT

from nfox.cli.log.database import ConversationLog
from nfox.cli.options.completion import WITHOUT_HEADS
from nfox.cli.train.arguments import _KINDS
from nfox.drafters import method_names, methods_with_heads
from nfox.export import engine_names
from nfox.known_models import KNOWN
from nfox.text.resolve import available


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with some files; the hub's cache has one model."""
    for name in (
        "model/nfox/adapters/fast/adapter_config.json",
        "small.gguf",
        "talk.json",
        "a.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "hub" / "models--some--fox").mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def completed(words: str, incomplete: str) -> list[str]:
    """Return what is completed behind the words of a command: an option, or an argument."""
    command: Any = root()
    context = command.make_context("nfox", [], resilient_parsing=True)
    *before, last = words.split()
    for word in before:
        if word in getattr(command, "commands", ()):
            command = command.commands[word]
            context = command.make_context(word, [], parent=context, resilient_parsing=True)
        else:
            name, value = word.split("=")
            context.params[name] = value
    [parameter] = [p for p in command.params if last in (*p.opts, p.name)]
    return [item.value for item in parameter.shell_complete(context, incomplete)]


@pytest.mark.parametrize("command", ["", "serve ", "bench ", "generate "])
def test_options_of_names_are_completed_in_every_command(command: str) -> None:
    names = [*KNOWN, "embedded", "some/fox", "hub/", "model/", "small.gguf"]
    assert completed(f"{command}--model", "") == names
    assert completed(f"{command}--model", "so") == ["some/fox"]
    assert completed(f"{command}--model", "model/") == ["model/nfox/"]
    assert completed(f"{command}--heads", "") == ["some/fox", "hub/", "model/"]
    assert completed(f"{command}--adapter", "cl") == ["cllm"]
    assert completed(f"{command}model=model --adapter", "fa") == ["fast"]
    assert completed(f"{command}--conv-template", "vicuna") == [
        name for name in available() if name.startswith("vicuna")
    ]
    assert completed(f"{command}--conv-template", "to") == ["tokenizer"]
    assert completed(f"{command}--conv-template", "talk") == ["talk.json"]


def test_methods_are_completed_one_or_several() -> None:
    assert completed("--method", "") == method_names()
    assert completed("bench --methods", "none,s") == ["none,spec"]

    assert completed("serve --allow-method", "j") == ["jacobi"]
    assert completed("bench --peers", "hf,llama.cpp q8") == ["hf,llama.cpp q8_0"]


def test_arguments_are_completed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tuple(_KINDS) == WITHOUT_HEADS
    assert completed("train method", "") == [*methods_with_heads(), *WITHOUT_HEADS]
    assert completed("get name", "smol") == ["smollm2"]
    assert completed("doctor model", "sm") == ["smollm2", "small.gguf"]
    assert completed("export layout", "") == [*methods_with_heads(), *engine_names()]
    assert completed("export weights", "mo") == ["model/"]
    monkeypatch.setenv("XDG_STATE_HOME", str(place))
    assert completed("log show number", "") == [] and not (place / "nfox").exists()
    (place / "nfox").mkdir()
    former = {"messages": [{"role": "user", "content": "hi"}], "model": "m", "template": "t"}
    (place / "nfox" / "last.json").write_text(json.dumps(former))  # which the log takes over
    assert len(ConversationLog().entries()) == 1
    assert completed("log show number", "") == ["1"]
    assert completed("log delete numbers", "2") == []


def test_where_nothing_is_nothing_is_completed() -> None:
    for typed in ("nowhere/x", "~nosuchuser/", "a\0b/", "x" * 5000 + "/"):
        assert completed("--model", typed) == []
    assert completed("--adapter", "nothing") == []


SLOW = ("torch", "transformers", "prompt_toolkit")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_does_not_wait_for_torch(shell: str) -> None:
    script = (
        "import sys; sys.argv[0] = 'nfox'; from nfox.cli import main\n"
        f"try: main()\nfinally: print([name for name in {SLOW} if name in sys.modules])"
    )
    typed = {"COMP_WORDS": "nfox train ", "COMP_CWORD": "2", "_TYPER_COMPLETE_ARGS": "nfox train "}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=ENVIRONMENT | typed | {"_NFOX_COMPLETE": f"complete_{shell}"},
        capture_output=True,
        text=True,
    )
    *names, slow = re.findall(r"[\w\[\]]+", done.stdout.replace('"', " "))
    assert slow == "[]" and [*methods_with_heads(), *WITHOUT_HEADS] == [
        name for name in names if name in (*method_names(), *WITHOUT_HEADS)
    ]


def test_nothing_that_is_completed_takes_torch() -> None:
    script = f"""
import sys
from typer.main import get_command
from nfox.cli.app import app
def complete(command, parent=None):
    context = command.make_context("", [], parent=parent, resilient_parsing=True)
    count = sum(len(p.shell_complete(context, "")) for p in command.get_params(context))
    inner = getattr(command, "commands", {{}}).values()
    return count + sum(complete(one, context) for one in inner)
print(complete(get_command(app)) > 500, [name for name in {SLOW} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.stdout == "True []\n", done.stderr


def test_the_command_is_completed_also_where_it_is_asked_for_as_a_module() -> None:
    chosen = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        [*COMMAND, "--show-completion", "bash"],
        env=ENVIRONMENT | chosen,
        capture_output=True,
        text=True,
    )
    assert "_NFOX_COMPLETE=complete_bash" in done.stdout, done.stderr
    assert done.stdout.rstrip().endswith(" nfox")
