"""Help fits on two screens of 24 rows and 80 columns, and `--help all` keeps nothing back."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import root, run
from programs import ENVIRONMENT

from nfox.cli.options.completion import trained
from nfox.cli.train.help import FILE

DOCS = Path(__file__).parents[2] / "docs"

TWO_SCREENS = 48
ROOT = root()


def commands(command: Any = ROOT, path: tuple[str, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield every command with the words that call it."""
    yield command, path
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


COMMANDS = list(commands())
PATHS = [path for _, path in COMMANDS if path != ("train",)]
OPTIONS = {path: command.params for command, path in COMMANDS}


def shown(*words: str, columns: int = 80) -> list[str]:
    done = run(*words, COLUMNS=str(columns))
    assert (done.exit_code, done.stderr) == (0, "")
    return done.stdout.splitlines()


def typed(lines: list[str]) -> list[str]:
    """Return the long names of the options that begin a row."""
    rows = (re.match(r"  (?:-\w, |    )(--[\w-]+)", line) for line in lines)
    return [row[1] for row in rows if row]


def options(path: tuple[str, ...]) -> list[str]:
    found = [p for p in OPTIONS[path] if p.param_type_name == "option"]
    names = [next(name for name in p.opts if name.startswith("--")) for p in found]
    return [*names, "--help"]


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_the_most_needed_fits_on_two_screens(path: tuple[str, ...]) -> None:
    lines = shown(*path, "--help")
    assert len(lines) <= TWO_SCREENS
    assert max(map(len, lines)) <= 80
    everything = shown(*path, "--help", "all")
    few, many = typed(lines), typed(everything)
    assert sorted(many) == sorted(options(path))
    assert [name for name in many if name in few] == few
    hidden = set(many) - set(few) - {"--config", "--debug", "--help", "--install-completion"}
    hidden -= {"--show-completion"}
    said = re.search(r"lists (\d+) more option", " ".join(lines))
    assert (int(said[1]) if said else 0) == len(hidden)


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 200])
def test_no_name_is_cut_at_any_width(columns: int) -> None:
    for path in ((), ("bench",), ("serve",), ("train",)):
        lines = shown(*path, "--help", "all", columns=columns)
        assert max(map(len, lines)) <= columns
        if path != ("train",):
            assert sorted(typed(lines)) == sorted(options(path))


def test_a_command_is_a_row_and_types_make_no_noise() -> None:
    lines = shown("--help")
    rows = lines[lines.index("Commands") + 1 :]
    rows = rows[: rows.index("")]
    assert [row.split()[0] for row in rows] == list(ROOT.commands)
    assert all(len(row.split()) > 2 and row.endswith(".") for row in rows)
    text = "\n".join(shown("--help", "all"))
    assert not re.search(r"<\w+|range|x>=|\.\.\.\|", text.replace("<think>", ""))
    for words in ("--threads N ", "--top-p X ", "--live/--no-live ", "[default: --live]"):
        assert words in text
    flat = " ".join(text.split())
    assert "Of weights and activations: auto, float32, float16, bfloat16. [default: auto]" in flat


def test_a_narrow_page_says_the_same() -> None:
    wide, narrow = (" ".join(" ".join(shown("--help", columns=n)).split()) for n in (80, 60))
    assert wide == narrow
    assert "WORD..." in shown("log", "search", "--help")[0] and "WORD......" not in wide


def test_all_is_asked_for_before_a_command_only() -> None:
    assert shown("methods", "-h", "all") == shown("methods", "--help", "all")
    assert shown("-q", "--help", "all") == shown("--help", "all")
    done = run("get", "all", "--help")
    assert "--debug" not in done.stdout and done.exit_code == 0


def test_a_training_shows_its_own_settings_first() -> None:
    few, many = (shown("train", "ctc", "--help", *words) for words in ((), ("all",)))
    headings = [line for line in few if line and line[0] != " "][1:4]
    assert headings == ["Model and data", "Method", "Trainer"]
    names = [re.findall(r"^  (--\w+)", "\n".join(lines), re.MULTILINE) for lines in (few, many)]
    assert names[1][: len(names[0])] == names[0]
    assert {"--data_path", "--ctc_num_heads", "--output_dir", "--learning_rate"} < {*names[0]}
    assert "--adam_beta1" in names[1] and "--adam_beta1" not in names[0]
    assert "`nfox train ctc --help all` lists the others" in " ".join(few)
    assert "[default: 0.001]" in " ".join(few) and max(map(len, many)) <= 80


def test_the_settings_of_trainings_are_listed_as_they_are() -> None:
    spec = importlib.util.spec_from_file_location("make_settings", DOCS / "make_settings.py")
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert FILE.read_text(encoding="utf-8") == made.text(), "run python docs/make_settings.py"
    assert list(json.loads(FILE.read_text(encoding="utf-8"))) == trained(None, "")


def test_the_settings_of_a_training_are_there_at_once() -> None:
    code = "import sys; from nfox.cli.train.command import run; run('ctc', ['--help'])"
    code += "; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.stdout.endswith("TrainingArguments.\n[]\n"), done.stderr
    assert "--ctc_num_heads" in done.stdout


def test_a_training_that_is_not_listed_shows_its_settings_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = shown("train", "draft", "--help")
    (tmp_path / "none.json").write_text("{}")
    monkeypatch.setattr("nfox.cli.train.help.FILE", tmp_path / "none.json")
    assert shown("train", "draft", "--help") == listed
    assert run("train", "lookup", "--help").exit_code == 2


def test_headings_are_bold_at_a_terminal_alone() -> None:
    assert "\x1b[1mCommands\x1b[0m" in run("--help", color=True, TERM="xterm").stdout
    assert "\x1b" not in run("--help", color=True, TERM="dumb").stdout
    assert "\x1b" not in run("--help").stdout
