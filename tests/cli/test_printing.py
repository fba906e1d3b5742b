"""Nothing that the program says steers the terminal, wherever it comes from."""

from __future__ import annotations

import io
import json
import logging
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import folder
import programs
import pytest
from rich.style import Style
from rich.table import Table
from rich.text import Text

from nfox.cli.display import pictures
from nfox.cli.display.console import CleanConsole
from nfox.cli.errors import print_error, report
from nfox.cli.printing import clean_libraries, say, say_json, tell
from nfox.controls import json_text

EVIL = "\x1b]52;c;QUJD\x07\x9b2J\u202e\nnfox: error: forged\r\x1b[1A"
HARMLESS = "]52;c;QUJD2J nfox: error: forged [1A"


@pytest.fixture
def cleaned() -> Iterator[None]:
    """Let what libraries say be cleaned, for one test."""
    factory, written = logging.getLogRecordFactory(), warnings.formatwarning
    clean_libraries()
    yield
    logging.setLogRecordFactory(factory)
    warnings.formatwarning = written


def test_lines_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    say(EVIL, 7)
    tell(EVIL)
    print_error(EVIL, EVIL)
    report(FileNotFoundError(2, "No such file", EVIL))
    out, err = capsys.readouterr()
    assert out == f"{HARMLESS}\n7\n"
    assert err.splitlines() == [
        HARMLESS,
        f"nfox: error: {HARMLESS}",
        f"hint: {HARMLESS}",
        f"nfox: error: FileNotFoundError: {HARMLESS}: No such file",
        "hint: --debug shows the traceback",
    ]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gb18030", "utf-8", "utf-16"])
def test_json_is_whole_in_every_locale(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"text": f"caf\u00e9 \u4f60\u597d \U0001f98a \ud83d \\ {EVIL}", "\u2028": [1.5, None]}
    written = io.BytesIO()
    stdout = io.TextIOWrapper(written, encoding, "replace")
    monkeypatch.setattr(sys, "stdout", stdout)
    for indent in (None, 1):
        say_json(json_text(value, indent) + "\n")
        text = written.getvalue().decode(encoding)
        assert json.loads(text) == value
        assert text.isascii() == (encoding not in ("utf-8", "utf-16"))
        stdout.seek(0)
        stdout.truncate()


def test_logs_and_warnings_of_libraries(cleaned: None, capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    log = logging.getLogger("a library")
    log.addHandler(handler)
    try:
        log.warning("%s: %s", "GET", EVIL)
        try:
            raise ValueError(EVIL)
        except ValueError:
            log.exception("it failed")
    finally:
        log.removeHandler(handler)
    sys.stderr.write(warnings.formatwarning(EVIL, UserWarning, "a.py", 1, ""))
    told = capsys.readouterr().err
    first, *traceback, warning = told.splitlines()
    assert first == f"GET: {HARMLESS}"
    assert traceback[0] == "it failed" and traceback[1].startswith("  Traceback")
    assert warning == f"a.py:1: UserWarning: {HARMLESS}"
    assert not set("\x1b\x07\x9b\u202e") & set(told)


def test_what_is_drawn_has_the_sequences_of_its_styles_only(tmp_path: Path) -> None:
    file = io.StringIO()
    console = CleanConsole(file=file, force_terminal=True, color_system="truecolor", width=99)
    table = Table(f"head {EVIL}", title=EVIL)
    table.add_row(Text(EVIL, Style(bold=True)))
    console.print(table, EVIL, Text(EVIL), markup=False)
    drawn = file.getvalue()
    assert "\x1b[1m" in drawn and "]52;c;QUJD" in drawn
    assert not {"\x1b]", "\x1b[1A", "\x07", "\x9b", "\u202e"} & {
        *(drawn[n : n + 4] for n in range(len(drawn))),
        *(drawn[n : n + 2] for n in range(len(drawn))),
        *drawn,
    }
    pictures.save(Text(EVIL), tmp_path / "picture.svg", title=EVIL)
    assert ElementTree.parse(tmp_path / "picture.svg").getroot().tag.endswith("svg")


def test_names_and_files_of_a_model(tmp_path: Path) -> None:
    model = tmp_path / EVIL.replace("/", "")
    shutil.copytree(folder.equipped(), model)
    about = model / "nfox" / "medusa" / "drafter.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"base": EVIL}))
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"id": EVIL, "prompt": EVIL}) + "\n")
    out, few = tmp_path / f"out{EVIL}.jsonl", ("--max-new-tokens", "3")
    for words in (
        ("-m", model, "--method", "medusa", "-p", "hi", "-v", *few),
        ("-m", folder.llama(seed=3), "--heads", about.parent, "-p", "hi", *few),
        ("generate", "-m", model, "--prompts", prompts, "--out", out, *few),
        ("methods", "-m", model),
        ("-m", f"{model}?", "--debug", "-p", "hi"),
    ):
        done = programs.run(*words)
        said = done.stdout + done.stderr
        assert not set(said) & {*map(chr, range(0x20)), "\x9b", "\u202e"} - {"\n", "\t"}, words
        assert not [line for line in said.splitlines() if line.startswith("nfox: error: f")], words
    for file in (out, out.with_name(f"{out.name}.provenance.json")):
        assert not set(file.read_text()) & {"\x1b", "\x07", "\x9b", "\u202e"}
    assert json.loads(out.read_text())["id"] == EVIL


def test_names_in_brackets_are_no_markup() -> None:
    name = "[/x] [red]a[/red] :smile: model[v2]"
    file = io.StringIO()
    table = Table(name, title=name)
    table.add_row(name)
    console = CleanConsole(file=file, width=99)
    console.print(table, name)
    assert file.getvalue().count(name) == 4
