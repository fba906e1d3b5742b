"""What cannot be used as it was typed is refused in one line, with its place and the remedy."""

from __future__ import annotations

import os
import pty
import struct
import termios
import zlib
from pathlib import Path

import pytest
from command_line import run

from nfox.cli.errors import in_one_line, print_error
from nfox.cli.layout import column_of, definitions
from nfox.counting import counted

CORES = os.cpu_count() or 1


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("chat", "there is no command 'chat'", "nfox alone is the chat, nfox -p TEXT one answer"),
        ("hello", "there is no command 'hello'", "nfox -p TEXT answers a text; commands: "),
        ("pull smollm2", "there is no command 'pull'", "nfox get NAME"),
        ("serv", "there is no command 'serv'", "did you mean serve?"),
        ("data chat", "there is no command 'chat'", "commands: distill, synthesise, trajectories"),
        ("--modle x", "there is no option --modle", "did you mean --model?"),
        ("-t hot", "--temperature hot: expected a number", ""),
        ("-t -1", "--temperature -1: expected at least 0", ""),
        ("--threads 1.5", "--threads 1.5: expected a whole number", ""),
        (
            "--threads 9999",
            f"--threads: expected at most {4 * CORES}, not 9999: "
            f"there {'is' if CORES == 1 else 'are'} {counted(CORES, 'core')}",
            "",
        ),
        ("--theme drk", "--theme drk: expected one of auto, dark, light", "did you mean dark?"),
        ("--theme", "--theme needs a value", ""),
        ("methods --json=3", "--json takes no value", ""),
        ("serve x", "not expected here: (x)", "`nfox serve --help` lists what there is"),
        ("bench compare", "OLD is missing", "nfox bench compare [OPTIONS] OLD NEW"),
        ("get", "NAME is missing", "nfox get [OPTIONS] NAME; NAME: As `nfox models` lists them"),
        (
            "train foo",
            "unknown method 'foo'",
            "what is trained: chimera, ctc, medusa, cllm, draft",
        ),
        ("train cllmm", "unknown method 'cllmm'", "did you mean cllm?"),
        ("train lookup", "lookup has no heads to train", "what is trained: heads of chimera, ctc"),
        ("export lookup x --out y", "lookup has no heads to export", "available: chimera, ctc"),
        ("export vlm x --out y", "unknown layout 'vlm'", "did you mean vllm?"),
    ],
)
def test_a_mistake_is_a_line_and_a_hint(words: str, message: str, hint: str) -> None:
    done = run(*words.split())
    first, *others = done.stderr.splitlines()
    assert (done.exit_code, first) == (2, f"nfox: error: {message}")
    assert len(others) <= 1 and "".join(others).startswith(f"hint: {hint}" if hint else "")


def test_a_text_in_the_place_of_a_command_is_told_how_to_ask() -> None:
    assert "hint: nfox -p TEXT answers a text" in run("why is that").stderr


@pytest.mark.parametrize(
    ("name", "value", "code", "message"),
    [
        ("TEMPERATURE", "abc", 2, "--temperature abc: expected a number"),
        ("LENIENCE", "0.5", 2, "--lenience is of the rule `rejection`"),
        ("METHOD", "warp", 2, "unknown method 'warp'"),
        ("MODEL", "/no/such/folder", 3, "/no/such/folder: no such folder"),
        ("OFFLINE", "maybe", 2, "--offline maybe: expected true or false"),
        ("STOP", "it's", 2, "No closing quotation; put quotes around what has spaces"),
        ("THEME", "drak", 2, "--theme drak: expected one of auto, dark, light"),
        ("MAX_MEMORY", "0=9", 2, "--max-memory limits a --device-map"),
    ],
)
def test_a_fault_of_the_environment_names_the_variable(
    name: str, value: str, code: int, message: str
) -> None:
    done = run("-p", "hi", **{f"NFOX_{name}": value})
    assert done.exit_code == code
    assert done.stderr.startswith(f"nfox: error: NFOX_{name}: {message}")


def test_what_was_typed_is_not_said_to_come_from_the_environment() -> None:
    done = run("-p", "hi", "--method", "warp", NFOX_METHOD="lookup", NFOX_THEME="dark")
    assert done.stderr.startswith("nfox: error: unknown method 'warp'")


def test_a_folder_that_holds_no_heads_is_told_apart(tmp_path: Path) -> None:
    assert "hint: the folder is empty" in run("--heads", str(tmp_path), "-p", "hi").stderr
    for name in "dcba":
        (tmp_path / name).touch()
    done = run("--heads", str(tmp_path), "-p", "hi")
    assert "neither heads nor a model nor an adapter: in it are a, b, c and 1 more" in done.stderr
    for words in (
        ("--adapter", str(tmp_path), "-p", "hi"),
        ("export", "ctc", str(tmp_path), "--out", "x"),
    ):
        assert "in it are a, b, c and 1 more" in run(*words).stderr
    (tmp_path / "some.gguf").touch()
    assert f"this is a model: --model {tmp_path}" in run("--heads", str(tmp_path), "-p", "x").stderr


def test_a_terminal_gets_lines_broken_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 40))
    path = "/a/folder/whose/path-is/longer/than/forty/columns/in/all"
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        print_error(f"{path}: there is no config.json in this folder", "two words " * 6)
        said = b""
        while said.count(b"\n") < 5:
            said += os.read(ours, 1 << 12)
    os.close(ours)
    assert said.decode().split("\r\n") == [
        *("nfox: error:", f"  {path}:", "  there is no config.json in this folder"),
        *("hint: two words two words two words two", "  words two words two words", ""),
    ]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (termios.error(5, "Input/output error"), "termios.error: Input/output error"),
        (struct.error("bad char"), "struct.error: bad char"),
        (zlib.error("incorrect"), "zlib.error: incorrect"),
        (KeyError(3, "three"), "KeyError: three"),
        (ValueError("two\nlines"), "ValueError: two lines"),
        (ZeroDivisionError(), "ZeroDivisionError"),
    ],
)
def test_no_error_is_called_error_alone(error: Exception, said: str) -> None:
    assert in_one_line(error) == said


ROWS = {"/short": "Words that go on for long. " * 4, "/long NAME=VALUE": "A few.", "/bare": ""}


def test_two_columns_are_no_longer_in_a_window_of_one() -> None:
    assert list(definitions(ROWS.items(), 1, 6)) == list(definitions(ROWS.items(), 20, 6))


@pytest.mark.parametrize("width", range(20, 201, 9))
def test_two_columns_fit_any_width(width: int) -> None:
    column = column_of(ROWS, 12)
    lines = list(definitions(ROWS.items(), width, column))
    assert max(map(len, lines)) <= width
    starts = [line.split()[0] for line in lines if line[2] != " "]
    assert starts == ["/short", "/long", "/bare"]
    words = [word for name, meaning in ROWS.items() for word in (*name.split(), *meaning.split())]
    assert " ".join(lines).split() == words
