"""Replies as Markdown: what is shown does not depend on how it came, and keeps the marks."""

from __future__ import annotations

import io
import random
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyte
import pytest
from rich.text import Text
from terminals import Terminal, Tty

from nfox.cli.display.markdown.inline import InlineText
from nfox.cli.display.markdown.runs import Marked
from nfox.cli.display.reply_view import ReplyView
from nfox.cli.display.theme import Screen, make_screen
from nfox.cli.options.chat import DisplayArguments
from nfox.text.pieces import Piece
from nfox.text.stream import _extends

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import drawing

ACCEPTED, TINT = "4;38;2;86;180;233", "48;2;15;51;71"  # of the dark theme
FRAGMENTS = (
    *("word ", "text", "a b ", "**", "*", "_", "`", "``", "~~", "[", "](", "\\", "&amp;", "2*3"),
    *("\n", "\n\n", "\n\n\n", "- ", "\n- ", "\n  - ", "\n1. ", "# ", "\n## ", "> ", "\n> > "),
    *("```\n", "\n```python\n", "\n> ```\n", "\n~~~\n", "def f(x):\n    return 'a'  # c\n", '"""'),
    *(
        "|",
        "\n| a | b |\n|---|:-:|\n| 1 | x |",
        "\n| ",
        "---\n",
        "\n***\n",
        "    ",
        "- [ ] ",
        "[x] ",
    ),
    *("[l](http://u)", "![a](b)", "<http://e>", "snake_case", "/* ", "*/"),
    *("well-known ", "https://a.example/long/link-to-it ", "\n\n    in dented code", "\n    more"),
    *("é", "e\u0301", "👩\u200d👩\u200d👧", "你好", "🦊", "한국어"),
)


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORFGBG", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    size(monkeypatch, 60, 12)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")


def size(monkeypatch: pytest.MonkeyPatch, columns: int, rows: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", str(rows))


def screen_for(file: io.StringIO, **options: object) -> Screen:
    usual: dict[str, object] = {"theme": "dark", "render": "markdown"}
    return make_screen(replace(DisplayArguments(), **usual | options), file)  # type: ignore[arg-type]


def written(pieces: Sequence[Piece], **options: object) -> str:
    """Return all that a reply writes, with a frame drawn after every piece."""
    file = Tty()
    screen = screen_for(file, **options)
    view = ReplyView(screen)
    for piece in pieces:
        view._next_frame = 0
        view.add([piece], lambda: Text("STATUS"))
    view.close()
    return file.getvalue()


def plain(source: str, **options: object) -> str:
    """Return the text of a reply that was made in one piece, without marks."""
    output = written([Piece(source, "bonus", 0)], **{"live": False} | options)
    return re.sub(r"\x1b\[[\d;]*m", "", output)


def cells(output: str, columns: int, rows: int) -> list[tuple[object, ...]]:
    """Return what is in the scrollback and on the screen, with all styles."""
    display = Terminal(columns, rows, history=100_000, ratio=0.001)
    pyte.Stream(display).feed(output.replace("\n", "\r\n"))
    lines = [*display.history.top, *(display.buffer[y] for y in range(rows))]
    found = [
        tuple(c if (c := line[x]).data.strip() else " " for x in range(columns)) for line in lines
    ]
    while found and set(found[-1]) == {" "}:
        found.pop()
    return found


def pieces_of(source: str, chance: random.Random) -> list[Piece]:
    """Cut a text into pieces of sources, between visible characters."""
    pieces: list[Piece] = []
    for index, character in enumerate(source):
        if pieces and (_extends(source[:index], character) or chance.random() < 0.6):
            pieces[-1] = replace(pieces[-1], text=pieces[-1].text + character)
        else:
            pieces.append(
                Piece(character, chance.choice(["accepted", "corrected", "bonus"]), index)
            )
    return pieces


@pytest.mark.parametrize("seed", range(60))
def test_the_screen_does_not_depend_on_how_the_text_came(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every frame is drawn, in windows too small for much, and compared with one piece, at once."""
    chance = random.Random(seed)
    columns, rows = chance.choice([12, 20, 60]), chance.choice([5, 8, 24])
    size(monkeypatch, columns, rows)
    source = "".join(chance.choices(FRAGMENTS, k=chance.randint(1, 25)))
    pieces = pieces_of(source, chance)
    options = {"provenance": chance.choice(["auto", "brackets"])}
    file = Tty()
    view = ReplyView(screen_for(file, live=False, **options))
    view._next_frame = float("inf")
    view.add(pieces)
    view.close()
    expected = cells(file.getvalue(), columns, rows)
    assert cells(written(pieces, **options), columns, rows) == expected


def test_what_is_settled_stays_as_it_is() -> None:
    chance = random.Random(0)
    marks = [
        "a",
        "b ",
        " ",
        "*",
        "**",
        "_",
        "`",
        "[",
        "]",
        "(",
        ")",
        "\n",
        "~~",
        "!",
        "<",
        "http://x",
    ]
    marks += [">", "\\", "&amp;", ".", "é", "e\u0301"]

    def shown(text: str, end: int) -> list[tuple[str, str, int]]:
        runs = [run for run in InlineText(Marked(text, ["bonus"] * len(text))).runs if run.sources]
        places = ((run, place, run.start + place) for run in runs for place in range(len(run.text)))
        return [(run.text[n], str(run.style), at) for run, n, at in places if at < end]

    settled = 0
    for _ in range(1500):
        whole = "".join(chance.choices(marks, k=chance.randint(1, 14))).strip()
        begun = whole[: chance.randint(0, len(whole))]
        end = InlineText(Marked(begun, ["bonus"] * len(begun))).settled()
        assert shown(begun, end) == shown(whole, end)
        settled += end
    assert settled > 3000, "what is never settled would be drawn again and again"


def test_every_character_knows_where_it_comes_from() -> None:
    source = r"a **b _c_** `d  e` [f *g*](http://h 'i') <http://j> ![k](l) ~~m~~ n\*o" "  \np\\\nq"
    inline = InlineText(Marked(source, ["bonus"] * len(source)))
    for run in inline.runs:
        if run.start is not None:
            assert source[run.start : run.start + len(run.text)] == run.text
    assert "".join(run.text for run in inline.runs) == (
        "a b c d  e f g (http://h 'i') http://j k (l) m n*o\np\nq"
    )
    entity = InlineText(Marked("x &amp; y", ["bonus"] * 9)).runs
    assert [(run.text, run.start) for run in entity] == [("x ", 0), ("&", 2), (" y", 7)]


def test_blocks() -> None:
    source = (
        "# Title #\n\nSome *text*\nin two lines\n\n1. one\n   more\n2. two\n"
        "   - in it\n   - [x] done\n"
        "* * *\n> quoted\n> text\n> ```sh\n> ls\n> ```\n```python\nx  = 1\n```\n"
        "#tag 1.5 - no list\n"
    )
    assert plain(source) == (
        "Title\n\nSome text\nin two lines\n\n1. one\n   more\n2. two\n"
        "   • in it\n   • ☑ done\n"
        f"{'─' * 24}\n▌ quoted\n▌ text\n▌ ─── sh\n▌ ls\n▌ ───\n─── python\nx  = 1\n───\n"
        "#tag 1.5 - no list\n"
    )
    assert plain("- a\n> b\n\n---\n", ascii=True) == f"* a\n> b\n\n{'-' * 24}\n"


def test_a_rule_that_closes_code_stands_below_the_one_that_opens_it() -> None:
    assert plain("- a\n  ```sh\n  ls\n  ```\n") == "• a\n  ─── sh\n  ls\n  ───\n"
    assert plain("1. ```\n   ls\n   ```\n") == "1. ───\n   ls\n   ───\n"
    assert plain("> - ```\n>   ls\n>   ```\n") == "▌ • ───\n▌   ls\n▌   ───\n"


def test_code_by_indentation_alone_is_shown_as_it_is_written() -> None:
    code = "so:\n\n    # *a*\n      b = **c\n\n    __d__\n"
    assert plain(code + "*e*\n") == code + "e\n"
    for other in ("1. a\n\n    *b*\n", "a\n    *b*\n", "a\n\n   *b*\n", "a\n\n    - *b*\n"):
        assert "*" not in plain(other)
    item = "1. a\n\n       *b*\n"
    assert plain(item) == item


def test_tables_are_laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "| Name | N |\n|:--|--:|\n| **a** b\\|c | 1 |\n| 你好 | 23 | more |\nafter"
    lines = plain(source).splitlines()
    assert [line.split() for line in lines] == [
        ["Name", "N"], ["─" * len(lines[1])], ["a", "b|c", "1"], ["你好", "23", "more"], ["after"],
    ]  # fmt: skip
    assert lines[2].index("1") == lines[3].index("3") + 2, "你 and 好 are two cells each"
    size(monkeypatch, 24, 12)
    narrow = plain(
        "| a | b |\n|---|---|\n| " + "word " * 12 + "| " + "x" * 30 + " |\n"
    ).splitlines()
    assert all(len(line) < 24 for line in narrow) and len(narrow) > 4
    assert "".join(narrow).count("x") == 30 and "".join(narrow).count("word") == 12
    for columns in range(2, 40):  # in columns narrower than a cell, too, nothing is lost
        size(monkeypatch, columns, 12)
        letters = re.sub(
            r"[\s─]", "", plain("| 你好吗 | b |\n|--|--|\n| 최후 abc | ddd 👩\u200d👧 e |\n")
        )
        assert sorted(letters) == sorted("你好吗b최후abcddd👩\u200d👧e")
    assert plain("| no table\n| here\n") == "| no table\n| here\n"


def test_marks_lie_over_markdown_and_code() -> None:
    said = [("**bo", "bonus"), ("ld** `co", "accepted"), ("de`\n\n```python\nx", "bonus")]
    said += [(" = 'a", "accepted"), ("b'\n```\n", "corrected")]
    pieces = [Piece(text, source, 0) for text, source in said]  # type: ignore[arg-type]
    output = written(pieces, live=False)
    string = "38;2;143;209;143"
    for mark, text in (
        ("1", "bo"),
        (f"1;{ACCEPTED}", "ld"),
        (ACCEPTED, " "),
        (f"4;{string};{TINT}", "co"),
        (string, "de"),
        (f"4;{TINT}", " = "),
        (f"4;{string};{TINT}", "'a"),
        (f"{string};48;2;70;48;3", "b'"),
    ):
        assert f"\x1b[{mark}m{text}\x1b[0m" in output
    assert plain("".join(text for text, _ in said)) == "bold code\n\n─── python\nx = 'ab'\n───\n"
    brackets = written(pieces, live=False, provenance="brackets", no_color=True)
    assert "⟨\x1b[1mld\x1b[0m co⟩de" in brackets and "x⟨ = 'a⟩{b'}\n" in brackets
    for options in ({"theme": "auto"}, {"theme": "dark", "provenance": "color"}):
        few = written(pieces, live=False, **options)
        assert ("48;2" in few) is (options["theme"] == "dark")
        assert ("\x1b[3;" in few) is (options["theme"] == "auto")
    uncoloured = written(pieces, live=False, no_color=True)
    assert "38;" not in uncoloured and "\x1b[4m = 'a\x1b[0m" in uncoloured


def test_code_keeps_its_colours_over_lines_and_languages_that_there_are_not() -> None:
    source = '```python\ndef f():\n    """a\n' + "    b\n" * 20 + '    """\n```\n'
    string = "38;2;143;209;143m"
    output = written([Piece(source, "bonus", 0)], live=False)
    lines = [line for line in output.splitlines() if "b" in line]
    assert len(lines) == 20 and all(string in line for line in lines)
    assert plain("```nonsense\na *b*\n```") == "─── nonsense\na *b*\n───\n"


@pytest.mark.parametrize(
    ("options", "is_markdown"),
    [
        ({}, True),
        ({"no_color": True}, False),
        ({"style": "simple"}, False),
        ({"render": "text"}, False),
        ({"render": "markdown", "no_color": True}, True),
        ({"render": "markdown", "style": "simple"}, True),
    ],
)
def test_auto_is_markdown_where_there_are_colours(
    options: dict[str, object], is_markdown: bool
) -> None:
    said = written([Piece("- **a**", "bonus", 0)], live=False, **{"render": "auto"} | options)
    assert ("**" not in said) is is_markdown


@pytest.mark.parametrize(
    "source",
    [
        "[[x] and](u)",
        r"[a `]` b](u)",
        r"[a \] b](u)",
        "![a ``` b](u) ```",
        "![[x] y](u)",
        "[[x](u)",
    ],
)
def test_what_brackets_may_become_is_not_decided_before(source: str) -> None:
    assert {_in_two(source, cut) for cut in range(1, len(source))} == {plain(source)}


def _in_two(source: str, cut: int) -> str:
    parts = [Piece(source[:cut], "bonus", 0), Piece(source[cut:], "bonus", 1)]
    return re.sub(r"\x1b\[[\d;]*m", "", written(parts, live=False))


def test_a_pipe_that_asks_for_markdown_gets_spaces_for_tabs() -> None:
    file = io.StringIO()
    view = ReplyView(screen_for(file))
    view.add([Piece("a `b`\n\t**c** `d`\n\t*e*", "bonus", 0)])
    view.close()
    assert file.getvalue() == "a b\n    c d\n    e\n"


def test_a_pipe_and_a_dumb_terminal_get_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    view = ReplyView(screen_for(file, render="auto"))
    view.add([Piece("**a**\n- b", "accepted", 0)])
    view.close()
    assert file.getvalue() == "**a**\n- b\n"
    monkeypatch.setenv("TERM", "dumb")
    assert written([Piece("**a**", "bonus", 0)], render="auto") == "**a**\n"


def test_reasoning_is_no_markdown() -> None:
    pieces = [Piece(text, "bonus", 0) for text in ("<thi", "nk>**hm**</think>", "\n**yes**")]
    output = written(pieces, live=False)
    assert "**hm**</think>" in output and "\x1b[1myes\x1b[0m" in output


def test_what_may_change_is_drawn_and_goes() -> None:
    file = Tty()
    view = ReplyView(screen_for(file, provenance="off"))
    view.add([Piece("sure **not ye", "bonus", 0)], lambda: Text("row"))
    rows = Terminal(60, 12)
    stream = pyte.Stream(rows)
    stream.feed(file.getvalue().replace("\n", "\r\n"))
    assert [row.rstrip() for row in rows.display[:2]] == ["sure **not ye", "row"]
    assert rows.cursor.x == len("sure") and rows.cursor.hidden
    file.truncate(file.seek(0))
    view._next_frame = 0
    view.add([Piece("t** end", "bonus", 1)])
    view.close()
    stream.feed(file.getvalue().replace("\n", "\r\n"))
    assert [row.rstrip() for row in rows.display[:2]] == ["sure not yet end", ""]
    assert not rows.cursor.hidden
    assert rows.buffer[0][6].bold and not rows.buffer[0][14].bold


def test_frames_are_rarer_where_they_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes a fiftieth of the time, however much there is to draw."""
    now = 0.0
    monkeypatch.setattr("nfox.decoding.clock.time.perf_counter", lambda: now)

    def status() -> Text:  # a frame that takes a tenth of a second
        nonlocal now
        now += 0.1
        return Text("row")

    view = ReplyView(screen_for(Tty()))
    spent = 0.0
    for _ in range(10_000):
        begin = now
        view.add([], status)
        spent += now - begin
        now += 0.01
    view.close()
    assert 0.005 < spent / now < 0.02


@pytest.mark.parametrize("text", drawing.TEXTS)
def test_drawing_takes_less_than_a_fifteenth_of_the_time(text: str) -> None:
    """In processor time, at 500 tokens per second: 3 to 4 %, by the processor.
    Drawing all of a reply again with each step would take most of it.
    """
    for _ in range(5):  # what else the machine does makes all of it slower at times
        spent, decoded = drawing.measure(drawing.TEXTS[text], "markdown")
        if spent < decoded / 15:
            return
    pytest.fail(f"{spent / decoded:.1%}")
