"""Completion in the shells themselves: what `nfox --show-completion` prints, and what TAB asks."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from programs import COMMAND, ENVIRONMENT

from nfox.cli.options.completion import WITHOUT_HEADS
from nfox.drafters import method_names, methods_with_heads

pytestmark = pytest.mark.slow
_ZSH = """
autoload -U compinit && compinit -u -d {home}/dump
source {script}
_arguments() {{
    local inner="${{1#*\\(\\(}}"
    eval "items=(${{inner%\\)\\)}})"
    print -rl -- "${{items[@]%%:*}}"
}}
words=({words} '') CURRENT={count}
_nfox_completion
"""
"""Calls what TAB calls; what would fill a menu prints what stands in it."""
_BASH = """
source {script}
COMP_WORDS=({words} '') COMP_CWORD={index}
_nfox_completion nfox
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
_FISH = """
source {script}
complete --do-complete '{words} '
"""
SCRIPTS = {"zsh": _ZSH, "bash": _BASH, "fish": _FISH}
"""What prints what each shell completes behind some words."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a home with the program on its path."""
    home = tmp_path_factory.mktemp("home")
    program = home / "bin" / "nfox"
    program.parent.mkdir()
    start = "import sys; sys.argv[0] = 'nfox'; from nfox.cli import main; main()"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{start}" "$@"\n')
    program.chmod(0o755)
    return home


@pytest.fixture(params=SCRIPTS)
def completed(request: pytest.FixtureRequest, home: Path) -> Callable[[str], list[str]]:
    """Return what a shell completes behind some words."""
    shell: str = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    env = ENVIRONMENT | {"HOME": str(home), "PATH": f"{home / 'bin'}:{ENVIRONMENT['PATH']}"}
    script = home / f"completion.{shell}"
    if not script.exists():
        chosen = env | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
        words = [*COMMAND, "--show-completion", shell]
        script.write_text(subprocess.run(words, env=chosen, capture_output=True, text=True).stdout)

    def complete(words: str) -> list[str]:
        index = len(words.split())
        file = home / f"press.{shell}"
        text = SCRIPTS[shell].format(
            script=script, words=words, index=index, count=index + 1, home=home
        )
        file.write_text(text)
        options = {"zsh": ["-f"], "bash": ["--norc"], "fish": ["--no-config"]}[shell]
        command = [shell, *options, str(file)]
        done = subprocess.run(command, env=env, cwd=home, capture_output=True, text=True)
        assert not done.stderr
        return sorted(line.partition("\t")[0] for line in done.stdout.splitlines())

    return complete


def test_a_shell_completes_what_there_is(completed: Callable[[str], list[str]]) -> None:
    assert completed("nfox --method") == method_names()
    assert completed("nfox train") == sorted([*methods_with_heads(), *WITHOUT_HEADS])
    assert {"train", "serve", "bench", "doctor"} <= set(completed("nfox"))
