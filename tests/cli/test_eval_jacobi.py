"""`nfox eval jacobi`: numbers that belong together, and a picture that says what they mean."""

from __future__ import annotations

import io
import json
from pathlib import Path

import folder
import full_disk
import pytest
from rich.cells import cell_len
from rich.text import Text
from typer.testing import CliRunner

from nfox.cli.app import app
from nfox.cli.display.jacobi_picture import trajectory_picture
from nfox.cli.display.pictures import draw, save
from nfox.cli.display.theme import ASCII, Symbols, make_screen
from nfox.cli.eval.jacobi import representative_block
from nfox.cli.options.chat import DisplayArguments
from nfox.train.cllm.blocks import Block

STATES = ((9, 9, 3, 9), (1, 9, 9, 4), (1, 2, 9, 4), (1, 2, 3, 4))
TEXTS = {1: "·one", 2: "a_very_long_token", 3: "语言模型很好用", 4: "!", 9: "?"}


def drawn(symbols: Symbols, color: str = "auto", file: Path | None = None) -> str:
    out = io.StringIO()
    screen = make_screen(DisplayArguments(color=color), out)  # type: ignore[arg-type]
    picture = trajectory_picture(STATES, TEXTS, symbols)
    draw(picture, screen)
    if file:
        save(picture, file)
    return out.getvalue()


@pytest.mark.parametrize("symbols", [Symbols(), ASCII])
def test_marks_say_what_is_right_wrong_and_early(symbols: Symbols) -> None:
    legend, *rows = drawn(symbols).splitlines()
    yes, no = symbols.yes, symbols.no
    assert all(mark in legend for mark in (yes, no, "~"))
    marks = [[word[0] for word in row.split()[1:]] for row in rows]
    early = "~"
    assert marks == [
        [no, no, early, no],
        [yes, no, no, early],
        [yes, yes, no, early],
        [yes, yes, yes, yes],
    ]
    assert [row.split()[0] for row in rows] == ["0", "1", "2", "3"]
    assert all("long_token" not in row for row in rows)


def test_colours_change_no_character(monkeypatch: pytest.MonkeyPatch) -> None:
    # Rich keeps how it wrote a style first, for all other tests too.
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    assert "\x1b" not in drawn(Symbols())
    shown = Text.from_ansi(drawn(Symbols(), color="always")).plain
    assert [line.rstrip() for line in shown.splitlines()] == [
        line.rstrip() for line in drawn(Symbols()).splitlines()
    ]


@pytest.mark.parametrize("width", [1, 20, 30, 80, 1000])
def test_a_wide_block_is_folded_and_loses_nothing(width: int) -> None:
    """Row by row, the folded bands say what the whole picture says."""
    states = [tuple((place * 7 + row * row) % 5 for place in range(32)) for row in range(4)]
    texts = {number: "语" * number + "x" for number in range(5)}

    def rows(width: int | None) -> list[list[str]]:
        out = io.StringIO()
        screen = make_screen(DisplayArguments(), out)
        draw(trajectory_picture(states, texts, Symbols(), width), screen)
        bands = out.getvalue().split("\n", 1)[1].split("\n\n")
        if width and width > 20:
            assert all(cell_len(line) <= width for band in bands for line in band.splitlines())
        found: list[list[str]] = [[] for _ in states]
        for band in bands:
            for number, line in enumerate(band.splitlines()):
                first, *cells = line.split()
                assert first == str(number)
                found[number] += cells
        return found

    assert rows(width) == rows(None)
    assert [len(row) for row in rows(width)] == [32] * 4


def test_a_block_of_usual_speed_is_shown() -> None:
    def block(length: int, states: int) -> Block:
        made = tuple((at,) * length for at in range(states))
        return Block(made, tuple(range(1, states)))

    answers = [[block(4, 2), block(4, 4)], [block(4, 3), block(3, 3), block(4, 5)]]
    assert representative_block(answers) == block(4, 4)


def test_the_command_measures_and_draws(tmp_path: Path) -> None:
    data, out, svg = tmp_path / "a.jsonl", tmp_path / "out.json", tmp_path / "a.svg"
    rows = [{"question": text, "answer": ""} for text in ("the fox", "dog " * 600, "lazy dog")]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--model", folder.llama(), "--data", data, "--out", out, "--picture", svg]
    words += ["--n", 5, "--max-new-tokens", 12]
    done = CliRunner().invoke(app, ["eval", "jacobi", *map(str, words)])
    assert done.exit_code == 0, done.stderr
    assert "1 of 3 questions were left out" in done.stderr
    found = json.loads(out.read_text())
    assert (found["n"], found["requests"] + found["repetitive"], found["refused"]) == (5, 2, 1)
    each = found["tokens_per_iteration"] * found["iterations_per_block"]
    assert each == pytest.approx(found["tokens"] / found["blocks"])
    assert found["converge_steps"] <= found["iterations_per_block"]
    assert f"{found['tokens_per_iteration']:.2f}" in done.stdout
    assert "right before its turn" in svg.read_text().replace("&#160;", " ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--data is missing"),
        (["--data", "absent.json"], "no such file"),
        (["--data", "absent.json", "--picture", "a.png"], "SVG"),
        (["--data", "absent.json", "--out", "no/such/x.json"], "no folder no/such for the result"),
    ],
)
def test_what_is_missing_is_one_line(words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["eval", "jacobi", *words])
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


def test_the_numbers_are_shown_even_if_they_cannot_be_written(tmp_path: Path) -> None:
    data, out, svg = tmp_path / "a.jsonl", tmp_path / "out.json", tmp_path / "a.svg"
    data.write_text('{"question": "the fox", "answer": ""}\n{"no": "question"}\n')
    words = ["--model", folder.llama(), "--data", data, "--out", out, "--picture", svg]
    words += ["--n", 5, "--max-new-tokens", 12]
    with full_disk.room(100):
        done = CliRunner().invoke(app, ["eval", "jacobi", *map(str, words)])
    assert done.exit_code == 1
    assert "tokens per iteration" in done.stdout
    assert f"{out} was not written: " in done.stderr
    assert "1 skipped as malformed" in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("nfox: error")]) == 1


def test_nothing_that_fits_is_one_line(tmp_path: Path) -> None:
    data = tmp_path / "a.jsonl"
    data.write_text(json.dumps({"question": "dog " * 600, "answer": ""}))
    words = ["eval", "jacobi", "--model", str(folder.llama()), "--data", str(data)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 4
    assert "none of 1 questions fits" in done.stderr
