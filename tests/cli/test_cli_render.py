"""What a reply looks like: every mark, and nothing lost, doubled or let through on the way."""

from __future__ import annotations

import io
import os
import pty
import random
import re
import select
import sys
import termios
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from threading import Timer
from types import SimpleNamespace
from typing import Any

import pyte
import pytest
import torch
from rich.style import Style
from rich.text import Text
from terminals import Terminal, Tty, bare

from nfox.cli.chat import background as question
from nfox.cli.chat.background import asking_background, without_answers
from nfox.cli.chat.interrupt import silent_keyboard
from nfox.cli.display.palettes import PALETTES, contrast, theme_for
from nfox.cli.display.reply_view import ReplyView, clean
from nfox.cli.display.step_trees import print_whole
from nfox.cli.display.steps import StepRecorder
from nfox.cli.display.terminal_writer import TerminalWriter
from nfox.cli.display.theme import Screen, make_screen
from nfox.cli.options.chat import DisplayArguments, Theme
from nfox.decoding.drafter import StepTimes
from nfox.decoding.generate import Step
from nfox.decoding.tree import TokenTree
from nfox.decoding.verify import Verdict
from nfox.text.pieces import Piece

ACCEPTED, CORRECTED = "\x1b[4;38;2;0;119;205m", "\x1b[38;2;180;94;0m"
UNDERLINED, ITALIC, RESET = "\x1b[4m", "\x1b[3m", "\x1b[0m"
PIECES = [Piece("The", "bonus", 0), Piece(" quick", "accepted", 1), Piece(" fox", "corrected", 1)]


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORFGBG", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("COLUMNS", "60"), ("LINES", "12"), ("TERM", "xterm-256color")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLORTERM", "truecolor")


def screen_for(file: io.StringIO, **options: object) -> Screen:
    Style._add.cache_clear()  # rich keeps a style's codes, whatever colours the next terminal has
    return make_screen(replace(DisplayArguments(), **options), file)  # type: ignore[arg-type]


def written(pieces: Sequence[Piece], *, fold: bool = False, **options: object) -> str:
    """Return all that a reply without status rows writes."""
    file = Tty()
    view = ReplyView(screen_for(file, live=False, **options), fold=fold)
    for piece in pieces:
        view.add([piece])
    view.close()
    return file.getvalue()


def shown(output: str, columns: int = 60, rows: int = 12) -> str:
    """Return what a terminal has on its screen and in its scrollback."""
    display = Terminal(columns, rows, history=100_000, ratio=0.001)
    pyte.Stream(display).feed(output.replace("\n", "\r\n"))
    history = ["".join(line[x].data for x in range(columns)) for line in display.history.top]
    return "\n".join([*history, *display.display])


@pytest.mark.parametrize("moment", ["_render", "_draw_below"])
def test_a_reply_that_is_left_while_a_frame_is_made_goes_on_with_its_whole_line(
    moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, calls = Tty(), iter(range(99))
    monkeypatch.setattr(file, "fileno", lambda: 1)
    view = ReplyView(screen_for(file))
    work = getattr(TerminalWriter, moment)

    def left_meanwhile(writer: TerminalWriter, *arguments: object) -> str:
        result: str = work(writer, *arguments)
        if next(calls) == 6:
            with monkeypatch.context() as patch:
                patch.setattr(os, "write", lambda number, data: file.write(data.decode()))
                view.pause()
                file.write("\n[stopped]\n$ fg\n")
                view.go_on()
        return result

    monkeypatch.setattr(TerminalWriter, moment, left_meanwhile)
    for name, value in (("_FRAME", 0.0), ("_SHARE", 1e9)):  # every word is a frame
        monkeypatch.setattr(f"nfox.cli.display.reply_view.{name}", value)
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    for number, word in enumerate(words):
        view.add([Piece(f"{word} ", "bonus", number)], lambda: Text("status"))
    view.close()
    before, _, after = shown(file.getvalue()).partition("[stopped]")
    _, text = after.split("fg", 1)
    assert text.split() == words and before.split()[0] == "one"


def test_each_source_has_its_mark() -> None:
    marked = f"The{ACCEPTED} quick{RESET}{CORRECTED} fox{RESET}\n"
    assert written(PIECES) == marked


def test_without_colour_the_marks_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    marked = f"The{UNDERLINED} quick{RESET}{ITALIC} fox{RESET}\n"
    assert written(PIECES, no_color=True) == marked
    assert written(PIECES, color="never") == marked
    monkeypatch.setenv("NO_COLOR", "1")
    assert written(PIECES) == marked


def test_modes_of_provenance() -> None:
    assert written(PIECES, provenance="off") == "The quick fox\n"
    assert written(PIECES, provenance="brackets") == "The⟨ quick⟩{ fox}\n"
    assert written(PIECES, provenance="brackets", ascii=True) == "The[ quick]{ fox}\n"
    assert written(PIECES, provenance="underline") == (
        f"The{UNDERLINED} quick{RESET}{ITALIC} fox{RESET}\n"
    )
    assert UNDERLINED not in written(PIECES, provenance="color")
    assert written(PIECES, style="simple") == "The quick fox\n"


def test_a_file_gets_the_text_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    view = ReplyView(screen_for(file))
    view.add(PIECES, lambda: Text("status"))
    view.close()
    assert file.getvalue() == "The quick fox\n"
    monkeypatch.setenv("TERM", "dumb")
    assert written(PIECES) == "The quick fox\n"


BACKGROUNDS = {  # of terminals and editors as they come, and of themes that many use
    "dark": "#000000 #0c0c0c #1e1e1e #1e1e2e #171421 #1d1f21 #002b36 #282a36 #282828 #292929",
    "light": "#ffffff #fdf6e3 #fbf1c7 #fafafa #eff1f5 #eeeeee",
}


@pytest.mark.parametrize("theme", BACKGROUNDS)
def test_colours_can_be_read(theme: Theme) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    for background in BACKGROUNDS[theme].split():
        assert theme_for(background) == theme
        assert all(contrast(color, background) >= 4.5 for color in PALETTES[theme].in_front())
    extreme = BACKGROUNDS[theme].split()[0]
    assert all(contrast(color, extreme) >= 4.5 for color in PALETTES["auto"].in_front())
    for behind in (PALETTES[theme].behind_accepted, PALETTES[theme].behind_corrected):
        assert all(contrast(color, behind) >= 4.5 for color in PALETTES[theme].in_front())
        assert contrast("#c0c0c0" if theme == "dark" else "#404040", behind) >= 4.5


def test_an_answer_that_comes_too_late_is_not_typed() -> None:
    late = b"ear\x1b]11;rgb:1e1e/1e1e/2e2e\x1b\\ly\x1b[?62;4c\r\x1b[A"
    assert without_answers(late) == b"early\r\x1b[A"


@pytest.mark.parametrize(
    ("answer", "background"),
    [
        (b"\x1b]11;rgb:1e1e/1e1e/2e2e\x1b\\", "#1e1e2e"),
        (b"\x1b]11;rgb:f/f/f\x07", "#ffffff"),
        (b"\x1b]11;rgba:0000/8000/ffff/ffff\x07", "#007fff"),
        (b"\x1b]11;black\x07", None),
        (b"", None),
    ],
)
def test_the_terminal_is_asked_and_what_is_typed_is_kept(
    answer: bytes, background: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pty.openpty()
    with open(theirs) as keyboard, open(theirs, "w", closefd=False) as display:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdin", keyboard)
        monkeypatch.setattr(sys, "stdout", display)
        settings = termios.tcgetattr(theirs)
        timer = Timer(0.05, os.write, (ours, answer[9:] + b"later\x1b[A\x1b[?62;4c"))
        with silent_keyboard(by_key=True), asking_background(True) as said:
            os.write(ours, b"early\r" + answer[:9])
            timer.start()
        assert (said.background, said.typed) == (background, b"early\rlater\x1b[A")
        timer.join()
        assert termios.tcgetattr(theirs) == settings
    os.close(ours)


@pytest.mark.parametrize("answer", [b"\x1b]11;rgb:f/f/f\x07\x1b[?62;4c", b""])
def test_what_ends_loading_leaves_no_answer_behind_and_a_mute_terminal_costs_no_time(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pty.openpty()
    waits: list[float] = []

    def look(*asked: Any) -> Any:
        waits.append(asked[-1])
        return select.select(*asked)

    with open(theirs) as keyboard, open(theirs, "w", closefd=False) as display:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdin", keyboard)
        monkeypatch.setattr(sys, "stdout", display)
        monkeypatch.setattr(question, "select", SimpleNamespace(select=look))
        with (
            pytest.raises(ZeroDivisionError),
            silent_keyboard(by_key=True),
            asking_background(True) as said,
        ):
            assert b"\x1b]11;?" in os.read(ours, 100), "it is asked before anything is loaded"
            os.write(ours, answer)
            late = SimpleNamespace(monotonic=lambda: time.monotonic() + 60)
            monkeypatch.setattr(question, "time", late)
            1 / 0  # noqa: B018
        assert said.background == ("#ffffff" if answer else None)
        assert not select.select([theirs], [], [], 0)[0] and waits == [0]
    os.close(ours)


def test_the_terminal_says_whether_it_is_dark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORFGBG", "15;0")
    assert written(PIECES) == written(PIECES, theme="dark")
    monkeypatch.setenv("COLORFGBG", "0;15")
    assert written(PIECES) == written(PIECES, theme="light")


def test_nothing_in_the_text_steers_the_terminal() -> None:
    nasty = "[red]a[/red] \x1b[31mb\x1b]0;title\x07c\x9b2Jd\re\bf\u202eg :smile: [link=x]h[/link]"
    output = written([Piece(nasty, "bonus", 0)])
    assert output == "[red]a[/red] [31mb]0;titlec2Jdefg :smile: [link=x]h[/link]\n"


def test_leading_space_is_dropped_and_tabs_are_spaces() -> None:
    pieces = [Piece("\n ", "bonus", 0), Piece(" a\tb", "bonus", 1)]
    assert written(pieces) == "a    b\n"


def test_reasoning_is_dim_or_folded() -> None:
    texts = ("<thi", "nk>hm</think>", "\nyes")
    pieces = [Piece(text, "bonus", number) for number, text in enumerate(texts)]
    output = written(pieces)
    assert "\x1b[2m" in output and output.endswith("yes\n")
    folded = written(pieces, fold=True)
    assert "hm" not in folded and folded.startswith("yes") and "hidden" in folded


@pytest.mark.slow
@pytest.mark.parametrize("columns", [20, 60, 120])
@pytest.mark.parametrize("render", ["text", "markdown"])
def test_a_long_reply_is_neither_cut_nor_doubled(
    columns: int, render: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    chance = random.Random(columns)
    words = [
        "".join(chance.choices("abcdefgh", k=chance.randint(1, 9)))
        + chance.choice([" ", " ", " ", ", ", "\n", "  ", " 你好", "🦊", " e\u0301", "한국어 "])
        for _ in range(300)  # several screens of the widest
    ]
    file = Tty()
    view = ReplyView(screen_for(file, render=render))
    for number, word in enumerate(words):
        view._next_frame = 0  # draw every status row, however fast this is
        view.add(
            [Piece(word, chance.choice(["accepted", "corrected", "bonus"]), number)],
            partial(Text, f"STATUS {number}"),
        )
        view._next_frame = 0
        view.add((), partial(Text, f"STATUS {number} again"))
    view.close()
    assert file.getvalue().count("STATUS") == 600
    assert bare(shown(file.getvalue(), columns)) == bare(clean("".join(words)))


def test_one_word_wider_than_the_screen_survives() -> None:
    file = Tty()
    view = ReplyView(screen_for(file))
    text = "".join(chr(ord("a") + n % 26) for n in range(1000))
    for n, letter in enumerate(text):
        view.add([Piece(letter, "bonus", n)], lambda: Text("row"))
    view.close()
    assert bare(shown(file.getvalue())) == text


@pytest.mark.parametrize("columns", [7, 20, 61])
def test_without_word_wrap_what_is_copied_is_what_was_said(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    said = "prose of words " * 20 + "\n```\n" + "code " * 60 + "\n```\n" + "最後" * 60
    parts = re.findall(".{1,3}", said, re.DOTALL)
    pieces = [Piece(part, "bonus", number) for number, part in enumerate(parts)]
    options = {"render": "text", "word_wrap": False}
    assert written(pieces, **options) == f"{said}\n"
    file = Tty()
    view = ReplyView(screen_for(file, **options))
    for piece in pieces:
        view.add([piece], lambda: Text("row"))
    view.close()
    assert file.getvalue().count("\n") == said.count("\n") + 1
    wide = [row.rstrip() for row in shown(file.getvalue(), 400).split("\n")]
    assert wide[:3] == [("prose of words " * 20).rstrip(), "```", ("code " * 60).rstrip()]


class Letters:
    """Spells tokens as letters."""

    def decode(self, ids: list[int]) -> str:
        return "".join("abcdefgh"[id] for id in ids)


@pytest.mark.parametrize("end", [1, 2, 3])
def test_the_probability_beside_a_token_is_its_own(end: int) -> None:
    """Also where a stop token ends the reply inside what was accepted."""
    chain = TokenTree.chain(0, [1, 2, 3])
    verdict = Verdict([0, 1, 2], 4, [1, 2, 4, 5])
    emitted = ((1, 2, 4)[:end], ("accepted", "accepted", "corrected")[:end])
    logits = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    p = logits.softmax(-1)
    recorder = StepRecorder(Letters())
    recorder.add(Step(*emitted, chain, verdict, StepTimes(0, 0, 0, 0, 0), "stop", logits))
    [record] = recorder.records
    assert record.p == pytest.approx(float(p[end - 1, emitted[0][-1]]))
    assert record.nodes[1].p == pytest.approx(float(p[1, 2]))
    screen = screen_for(io.StringIO())
    print_whole(1, [record], screen, screen.console)
    shown = screen.console.file.getvalue()
    assert ("ᵀ e p=" in shown) is (end == 3)  # a drafted token stands in the tree already
    assert f"b p={float(p[0, 1]):.3g}" in shown


def test_the_status_row_stands_below_the_text_and_goes() -> None:
    file = Tty()
    view = ReplyView(screen_for(file))
    view.add([Piece("some text and", "bonus", 0)], lambda: Text("12 tok/s"))
    rows = [row.rstrip() for row in shown(file.getvalue()).split("\n")]
    assert rows[:3] == ["some text and", "12 tok/s", ""]
    view.add([Piece(" and more", "bonus", 1)], lambda: Text("13 tok/s"))
    view.close()
    assert bare(shown(file.getvalue())) == "sometextandandmore"


def test_a_style_never_changes_inside_a_bracketed_run() -> None:
    pieces = [Piece(c, "accepted", n) for n, c in enumerate("abc")]
    assert written(pieces, provenance="brackets") == "⟨abc⟩\n"
