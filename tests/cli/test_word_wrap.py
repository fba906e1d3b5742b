"""Rows of replies end between words, however the text came, and in code nowhere."""

from __future__ import annotations

import random
import textwrap
from collections.abc import Callable
from dataclasses import replace

import pyte
import pytest
from rich.text import Text
from terminals import Terminal, Tty

from nfox.cli.display.reply_view import ReplyView
from nfox.cli.display.theme import make_screen
from nfox.cli.options.chat import DisplayArguments
from nfox.text.pieces import Piece

Rows = Callable[..., list[str]]


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Rows:
    """Return the rows that a text leaves on a terminal, whose tokens are of one to five characters,
    or of other sizes, and drawn one by one.
    """
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORFGBG", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")

    def shown(
        text: str, columns: int, sizes: tuple[int, int] = (1, 5), **options: object
    ) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("LINES", "12")
        chance, file, at = random.Random(columns), Tty(), 0
        display = replace(DisplayArguments(), **options)  # type: ignore[arg-type]
        view = ReplyView(make_screen(display, file))
        while at < len(text):
            size = chance.randint(*sizes)
            view._next_frame = 0
            view.add([Piece(text[at : at + size], "bonus", at)], lambda: Text("status"))
            at += size
        view.close()
        terminal = Terminal(columns, 12, history=100_000, ratio=0.001)
        pyte.Stream(terminal).feed(file.getvalue().replace("\n", "\r\n"))
        above = ["".join(line[x].data for x in range(columns)) for line in terminal.history.top]
        found = [row.rstrip() for row in [*above, *terminal.display]]
        return "\n".join(found).rstrip("\n").split("\n")

    return shown


@pytest.mark.parametrize("columns", [10, 19, 60])
@pytest.mark.parametrize("render", ["text", "markdown"])
def test_rows_hold_as_many_words_as_fit(rows: Rows, columns: int, render: str) -> None:
    chance = random.Random(columns)
    words = ["".join(chance.choices("abcdé", k=chance.randint(1, 10))) for _ in range(150)]
    expected = textwrap.wrap(" ".join(words), columns)
    assert rows(" ".join(words), columns, render=render) == expected
    assert rows("  ".join(words) + "   ", columns, render=render) == [
        row.rstrip() for row in _greedy(words, columns)
    ]


def _greedy(words: list[str], columns: int) -> list[str]:
    """Return rows of words with two spaces between them."""
    found = [words[0]]
    for word in words[1:]:
        fits = len(found[-1]) + 2 + len(word) <= columns
        found[-1:] = [f"{found[-1]}  {word}"] if fits else [found[-1], word]
    return found


def test_a_word_that_fits_in_no_row_begins_one_and_is_broken_at_the_edge(rows: Rows) -> None:
    assert rows("see https://a.example/bcdefghi there", 12) == [
        *("see", "https://a.ex", "ample/bcdefg", "hi there")
    ]


@pytest.mark.parametrize("render", ["text", "markdown"])
def test_words_are_broken_behind_their_hyphens(rows: Rows, render: str) -> None:
    chance = random.Random(0)
    words = ["-".join(chance.choices(["a", "bc", "def", "7", "é"], k=3)) for _ in range(150)]
    assert rows(" ".join(words), 14, render=render) == textwrap.wrap(" ".join(words), 14)
    assert rows("- a well-known fox", 12, render=render)[1:] == ["  known fox"]
    assert rows("the path a/well-known", 15, render=render) == ["the path", "a/well-known"]


@pytest.mark.parametrize("render", ["text", "markdown"])
def test_a_link_in_an_item_or_a_quote_goes_on_below_its_text(rows: Rows, render: str) -> None:
    bullet, bar = ("•", "▌") if render == "markdown" else ("-", ">")
    link = "https://a.b/cdefghi"
    assert rows(f"- See {link} there", 14, render=render) == [
        *(f"{bullet} See https://", "  a.b/cdefghi", "  there")
    ], "it begins where there is room"
    assert rows(f"- See also {link}", 14, render=render) == [
        *(f"{bullet} See also", "  https://a.b/", "  cdefghi")
    ]
    assert rows(f"> {link}", 12, render=render) == [f"{bar} https://a.", f"{bar} b/cdefghi"]


@pytest.mark.parametrize("render", ["text", "markdown"])
def test_code_by_indentation_alone_is_broken_by_the_terminal(rows: Rows, render: str) -> None:
    found = rows("say:\n\n    a = one + two\n    b = 33 + four\nand so on", 12, render=render)
    assert found == ["say:", "", "    a = one", "+ two", "    b = 33 +", " four", "and so on"]
    assert rows("1. say\n\n    one two three", 12, render=render)[2:] == [
        "    one two",
        "    three",
    ]


@pytest.mark.parametrize("render", ["text", "markdown"])
@pytest.mark.parametrize("seed", range(15))
def test_breaks_do_not_depend_on_how_the_text_came(rows: Rows, seed: int, render: str) -> None:
    chance = random.Random(seed)
    parts = ["one ", "well-known ", "https://a.example/to-a-place ", "abcdefghijkl", "你好", "🦊 "]
    parts += ["\n- ", "\n  1. ", "\n> ", "\n\n", "    two"]
    text = "x" + "".join(chance.choices(parts, k=25))
    whole, cut = (rows(text, 16, render=render, sizes=sizes) for sizes in ((500, 500), (1, 3)))
    assert cut == whole


@pytest.mark.parametrize("render", ["text", "markdown"])
def test_rows_of_items_and_quotes_begin_below_their_text(rows: Rows, render: str) -> None:
    bullet, bar = ("•", "▌") if render == "markdown" else ("-", ">")
    text = "- one two three\n  - four five six\n\n10. seven eight\n\n> nine ten eleven"
    assert rows(text, 13, render=render) == [
        *(f"{bullet} one two", "  three", f"  {bullet} four five", "    six", ""),
        *("10. seven", "    eight", "", f"{bar} nine ten", f"{bar} eleven"),
    ]
    assert rows("- [x] one two three", 11, render="markdown") == ["• ☑ one two", "    three"]
    assert rows("12. abc def", 6, render=render) == ["12.", "abc", "def"], "no room below it"


@pytest.mark.parametrize("render", ["text", "markdown"])
def test_code_and_tables_are_broken_by_the_terminal_alone(rows: Rows, render: str) -> None:
    code = "a = one + two + three"
    text = f"say this now:\n```\n{code}\n{code}\n```\nand so on, then"
    found = rows(text, 10, render=render)
    broken = ["a = one +", "two + thre", "e"]
    assert found[:2] + found[3:9] + found[10:] == [
        *("say this", "now:", *broken, *broken, "and so on,", "then")
    ]
    assert rows(code, 10, render=render) == ["a = one +", "two +", "three"]
    table = ["a  b", "────", "1  2"]
    assert rows("| a | b |\n|---|---|\n| 1 | 2 |\n", 10, render="markdown") == table


def test_chinese_and_japanese_are_broken_anywhere_but_before_marks_that_close(rows: Rows) -> None:
    assert rows("最後の「言葉」です。はい", 8) == ["最後の", "「言葉」", "です。は", "い"]
    assert rows("한국어 문장은 나뉜다", 10) == ["한국어", "문장은", "나뉜다"], "Korean has spaces"
    family = "👩\u200d👩\u200d👧"
    assert len(rows(f"🦊🦊🦊🦊{family}", 9)) == 2


def test_no_break_is_added_where_none_is_wished(rows: Rows) -> None:
    assert rows("one two three", 10, word_wrap=False) == ["one two th", "ree"]
