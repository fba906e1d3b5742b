"""What a shell completes, and what it needs for that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from programs import ENVIRONMENT
from typer.main import get_command

from nfox.cli.app import app
from nfox.cli.options.completion import WITHOUT_HEADS
from nfox.cli.train.arguments import _KINDS
from nfox.drafters import method_names, methods_with_heads
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
    command: Any = get_command(app)
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
    names = [*KNOWN, "some/fox", "hub/", "model/", "small.gguf"]
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


def test_arguments_are_completed() -> None:
    assert tuple(_KINDS) == WITHOUT_HEADS
    assert completed("train method", "") == [*methods_with_heads(), *WITHOUT_HEADS]
    assert completed("get name", "smol") == ["smollm2"]
    assert completed("doctor model", "sm") == ["smollm2", "small.gguf"]


def test_where_nothing_is_nothing_is_completed() -> None:
    for typed in ("nowhere/x", "~nosuchuser/", "a\0b/", "x" * 5000 + "/"):
        assert completed("--model", typed) == []
    assert completed("--adapter", "nothing") == []


def test_a_shell_does_not_wait_for_torch() -> None:
    script = (
        "import sys; sys.argv[0] = 'nfox'; from nfox.cli import main\n"
        "try: main()\n"
        "finally: print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    typed = {"COMP_WORDS": "nfox --model s", "COMP_CWORD": "2", "_NFOX_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=ENVIRONMENT | typed, capture_output=True, text=True
    )
    assert done.stdout.split() == ["smollm2", "small.gguf", "[]"]
