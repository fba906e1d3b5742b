"""Heat maps: every character in the colour of its step, on the screen, on a page, in a picture."""

from __future__ import annotations

import io
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import browser
import chat_app
import cli_model
import pytest
from rich.cells import cell_len
from typer.testing import CliRunner, Result

from nfox import Conversation, Settings, load
from nfox.cli.app import app as program
from nfox.cli.chat import events
from nfox.cli.display import heat_document
from nfox.cli.display.heat_map import DARK, LIGHT, HeatMap, bands_of, level_of, print_heat_map
from nfox.cli.display.palettes import contrast
from nfox.cli.display.reply_view import clean
from nfox.cli.display.theme import make_screen
from nfox.cli.heat import read_heat_maps
from nfox.cli.log.database import ConversationLog
from nfox.cli.log.writer import LogWriter
from nfox.cli.options.chat import DisplayArguments
from nfox.controls import sanitize
from nfox.engine import Engine
from nfox.errors import UsageError
from nfox.text.pieces import Piece, text_of

NASTY = (
    *("<script>alert(1)</script>", "&amp; ", '"q" ', "\x1b[31m", "\u202e", "]]>", "\n", "\n\n"),
    *("    x = 1\n", "你好", "👩\u200d👩\u200d👧", "e\u0301", "\tgoes", " word", "-->", "a" * 200),
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    engine = load(str(cli_model.save(tmp_path_factory.mktemp("model"))))
    engine.use("lookup", {"gamma": "5"})  # what it drafts depends on no time
    engine.use_settings(Settings(max_new_tokens=31))
    return engine


def some_reply(seed: int) -> tuple[list[Piece], list[int]]:
    """Return the pieces of a reply and the tokens of its steps, some of which complete no text."""
    chance = random.Random(seed)
    lengths = [chance.randint(1, 12) for _ in range(30)]
    pieces = [
        Piece(text, "bonus", step)
        for step in range(30)
        for text in chance.choices(NASTY, k=chance.randint(0, 3))
    ]
    return pieces, lengths


def some_map(seed: int) -> HeatMap:
    pieces, lengths = some_reply(seed)
    return HeatMap(bands_of(pieces, lengths), lengths, "<i>model\x1b\n</i>", "spec", 12.34)


class Bands(HTMLParser):
    """Reads what stands in the bands of a page.

    Attributes:
        found: the class of the band, for every character in <pre>.
        tags: all elements of the page.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.tags: set[str] = set()
        self._in_pre, self._class = False, ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._in_pre = self._in_pre or tag == "pre"
        self._class = dict(attrs).get("class") or "" if tag == "span" else self._class

    def handle_endtag(self, tag: str) -> None:
        self._in_pre = self._in_pre and tag != "pre"

    def handle_data(self, data: str) -> None:
        if self._in_pre:
            self.found += [(letter, self._class) for letter in data]


@pytest.mark.parametrize("seed", range(10))
def test_every_character_has_the_colour_of_its_step(seed: int) -> None:
    pieces, lengths = some_reply(seed)
    page = heat_document.html(some_map(seed))
    expected = [
        (letter, f"n{min(lengths[piece.step], 8)}")
        for piece in pieces
        for letter in sanitize(piece.text)
    ]
    read = Bands(page)
    assert read.found == expected
    assert read.tags <= {"html", "meta", "title", "style", "h1", "p", "span", "pre", "i"}
    assert not re.search(r"https?:|src=|href=|url\(|@import", page)
    assert f"τ {sum(lengths) / 30:.2f} · 12.3 tokens/s · {sum(lengths)} tokens in 30 steps" in page


@pytest.mark.parametrize("seed", range(10))
def test_a_picture_has_all_of_the_text_within_its_edges(seed: int) -> None:
    pieces, lengths = some_reply(seed)
    picture = heat_document.svg(some_map(seed))
    root = ElementTree.fromstring(picture)
    assert picture.count("http") == 1 and "@import" not in picture  # the name of the format
    kinds = {element.tag.partition("}")[2] for element in root.iter()}
    assert kinds == {"svg", "title", "style", "rect", "text"}
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    texts = list(root.findall("{*}text"))
    for element in [*texts, *root.findall("{*}rect")]:
        length = float(element.get("textLength") or element.get("width") or 0)
        assert 0 <= float(element.get("x", 0)) <= width - length + 0.1
        assert 0 <= float(element.get("y", 0)) <= height
    bands = [element for element in texts if (element.get("class") or "")[1:].isdecimal()]
    said = "".join(element.text or "" for element in bands if len(element))
    shown = clean(text_of(pieces)).replace("\n", "↵")
    assert said.replace(" ", "") == shown.replace(" ", "")
    grounds = [element for element in root.findall("{*}rect") if len(element)]
    for ground in grounds:  # each says which step it is, in the colour of that step
        found = re.fullmatch(r"step (\d+): (\d+) tokens?", ground[0].text or "")
        assert found is not None and lengths[int(found[1]) - 1] == int(found[2])
        assert ground.get("class") == f"n{level_of(int(found[2]))}"
    for element in bands:  # as wide as its characters, whatever the font
        length = 8.4 * cell_len(element.text or "")
        assert float(element.get("textLength", 0)) == pytest.approx(length, abs=0.06)


def test_colours_can_be_read_and_told_apart() -> None:
    assert LIGHT.keys() == DARK.keys() == set(range(2, 9))
    for palette, ground in ((LIGHT, "#ffffff"), (DARK, "#000000")):
        assert all(contrast(ink, back) >= 4.5 for back, ink in palette.values())
        steps = [contrast(back, ground) for _, (back, _) in sorted(palette.items())]
        assert all(
            after > 1.1 * before for before, after in zip([1.0, *steps], steps, strict=False)
        )


def drawn(heat: HeatMap, **options: object) -> str:
    screen = make_screen(replace(DisplayArguments(), **options), io.StringIO())  # type: ignore[arg-type]
    print_heat_map(heat, screen)
    return screen.console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_without_colours_numbers_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TERM", "xterm-256color"), ("COLORTERM", "truecolor")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    pieces = [Piece("A", "bonus", 0), Piece(" quick\n", "bonus", 1), Piece("fox", "bonus", 2)]
    lengths = [1, 2, 12]
    heat = HeatMap(bands_of(pieces, lengths), lengths, "m", "spec", 5.0)
    assert drawn(heat).splitlines() == [
        "m",
        "spec · τ 5.00 · 5.0 tokens/s · 15 tokens in 3 steps",
        "tokens per step:  1 1x  2 1x  8+ 1x",
        "",
        "A¹ quick↵²",
        "fox¹²",
    ]
    assert drawn(heat, ascii=True).isascii() and "fox^12" in drawn(heat, ascii=True)
    coloured = drawn(heat, color="always", theme="dark")
    assert "A\x1b" in coloured and "fox¹²" in coloured and "\x1b[38" in coloured
    assert coloured != drawn(heat, color="always", theme="light")


def written(engine: Engine, file: Path, texts: Sequence[str]) -> Iterator[str]:
    """Write the events of replies to a file; yield what they say."""
    rows = [events.start(engine)]
    for text in texts:
        rows += events.reply(engine.stream(text), steps=len(rows) > 3)
        yield str(rows[-1]["text"])
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def invoke(*words: object, input: str = "") -> Result:
    return CliRunner().invoke(program, ["heat", *map(str, words)], input=input)


def test_a_reply_from_its_lines_is_the_one_of_the_chat(engine: Engine, tmp_path: Path) -> None:
    app = chat_app.make(engine)
    chat_app.do(app, "the quick brown dog")
    part = app.replies.last_part(app.conversation)
    last = part.exchange
    own = bands_of(part.pieces, last.reply.stats.lengths)
    file = tmp_path / "events.jsonl"
    asked = ["hello", "the quick brown dog"]
    conversation = Conversation(engine, history=False)
    rows = [events.start(engine)]
    for text in asked:
        rows += events.reply(conversation.send(text), steps=False)
    file.write_text("\n".join(map(json.dumps, rows)))
    first, second = read_heat_maps(str(file))
    assert second.bands == own and first.bands != own
    assert text_of([Piece(b.text, "bonus", b.step) for b in own]) == last.reply.text
    assert sum(second.lengths) == last.reply.stats.tokens == 31
    assert {band.length for band in own} > {1}
    assert second.model == Path(engine.model.name).name and second.method == "lookup"
    page = tmp_path / "own.html"
    assert f"in {page}" in " ".join(chat_app.do(app, f"/heat {page}").split())
    read = Bands(page.read_text()).found
    assert "".join(letter for letter, _ in read) == sanitize(last.reply.text)
    assert "tokens per step" in chat_app.do(app, "/heat")


def test_a_reply_in_the_log_is_drawn(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    conversation, log = Conversation(engine), ConversationLog()
    writer = LogWriter(log)
    parts: list[list[Piece]] = []
    for ask in (lambda: conversation.send("the quick brown dog"), conversation.go_on):
        stream = ask()
        parts.append([piece for update in stream.updates() for piece in update.pieces])
        writer.keep(conversation, stream.reply, parts[-1])
        assert invoke(1, "--out", "a.html").exit_code == 0
        found = Bands(Path("a.html").read_text()).found
        lengths = stream.reply.stats.lengths
        assert found == [
            (letter, f"n{level_of(lengths[piece.step])}")
            for piece in parts[-1]
            for letter in sanitize(piece.text)
        ]
    conversation.send("and?").read_to_end()
    writer.keep(conversation)
    refused("conversation 1: ", 1)  # nothing is known of its steps
    assert invoke(1, "--reply", 1).exit_code == 0
    refused("no reply 3", 1, "--reply", 3)
    refused("no conversation 2", 2)
    Path("2").write_text("a file goes before the log")
    refused("2, line 1", 2)


def test_files_are_written_by_their_endings(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    texts = list(written(engine, file, ["hello", "the quick brown dog"]))
    for out, begin in (("a.html", "<!doctype html>"), ("a.SVG", "<svg")):
        done = invoke(file, "--out", tmp_path / out)
        assert done.exit_code == 0 and str(tmp_path / out) in done.output
        assert (tmp_path / out).read_text().startswith(begin)
    piped = invoke("-", "-o", tmp_path / "b.html", "--reply", 1, input=file.read_text())
    assert piped.exit_code == 0
    found = Bands((tmp_path / "b.html").read_text()).found
    assert "".join(letter for letter, _ in found) == sanitize(texts[0])
    assert "lookup · τ" in invoke(file).output


def test_what_is_no_reply_is_refused_in_a_line(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    list(written(engine, file, ["hello"]))
    start, *middle, end = file.read_text().splitlines()
    former = [json.dumps({k: v for k, v in json.loads(line).items() if k != "steps"})
              for line in middle]  # fmt: skip
    for lines, complaint in (
        ([], "no whole reply"),
        ([start, *middle], "no whole reply"),
        (["hello"], "line 1"),
        (["[1]"], "line 1: no event"),
        (middle, "before any start"),
        ([start.replace("chat/1", "chat/9")], "line 1: schema"),
        ([start, *former, end], "steps"),
        ([start, middle[0].replace('"steps": [[', '"steps": [[9'), end], "line 2"),
        ([start, *middle, end.replace('"lengths": [', '"lengths": [], "x": [')], "more steps"),
    ):
        file.write_text("\n".join(lines))
        refused(complaint, file)
    file.write_text("\n".join([start, *middle, end]))
    refused("no reply 2", file, "--reply", 2)
    refused(".html or .svg", file, "--out", tmp_path / "a.png")
    refused("no folder", file, "--out", tmp_path / "none" / "a.svg")
    refused("No such file", tmp_path / "none.jsonl")


def refused(complaint: str, *words: object) -> None:
    done = invoke(*words)
    error, *rest = done.stderr.splitlines()
    assert done.exit_code == 2 and complaint in error, done.stderr
    assert all(line.startswith("hint: ") for line in rest) and not done.stdout


def test_the_command_of_the_chat_says_what_is_missing(engine: Engine, tmp_path: Path) -> None:
    app = chat_app.make(engine)
    with pytest.raises(UsageError, match="no reply yet"):
        chat_app.do(app, "/heat")
    chat_app.do(app, "hello")
    (tmp_path / "mine.html").write_text("mine")
    for name in ("mine.html", "a.txt", "none/a.svg"):
        with pytest.raises(UsageError):
            chat_app.do(app, f"/heat {tmp_path / name}")
    assert (tmp_path / "mine.html").read_text() == "mine"


@pytest.mark.skipif(browser.PROGRAM is None, reason="there is no Chromium here")
def test_a_browser_shows_it_dark_and_narrow(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(heat_document.html(some_map(1)))
    (tmp_path / "a.svg").write_text(heat_document.svg(some_map(1)))
    script = """(() => {
        const colours = (name) => {
            const style = getComputedStyle(document.querySelector(name))
            return [style.color, style.fill, style.backgroundColor].join()
        }
        return [document.documentElement.scrollWidth, colours('.n8'), colours('.n2')]
    })()"""
    with browser.chromium(tmp_path / "browser") as page:
        for name in ("a.html", "a.svg"):
            found = []
            for dark in (False, True):
                page.show((tmp_path / name).as_uri(), width=400, dark=dark)
                found.append(page.run(script))
            assert found[0][1:] != found[1][1:] and found[0][1] != found[0][2]
            assert found[0][0] <= 400 or name == "a.svg"
        assert not page.complaints
