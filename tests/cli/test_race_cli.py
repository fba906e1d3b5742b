"""Races as they are shown: in columns, in a table, in a recording."""

from __future__ import annotations

import io
import json
import os
import re
import select
import signal
import time
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cli_model
import pyte
import pytest
import terminals
from chat_terminal import Chat, chatting
from job_control import STOPPED
from rich.cells import cell_len, set_cell_size
from rich.color import ColorSystem
from rich.text import Text
from typer.testing import CliRunner

from nfox import load
from nfox.cli.app import app as program
from nfox.cli.chat import race as racing
from nfox.cli.chat.race import measure, parse, show, usual_methods
from nfox.cli.display.cast import recording
from nfox.cli.display.palettes import PALETTES
from nfox.cli.display.race_picture import RacePicture
from nfox.cli.display.race_results import RaceResults
from nfox.cli.display.race_svg import animated
from nfox.cli.display.reply_view import clean
from nfox.cli.display.theme import ASCII, Screen, make_screen
from nfox.cli.options.chat import DisplayArguments
from nfox.controls import sanitize
from nfox.drafters.common.method import Method
from nfox.engine import Engine
from nfox.errors import UsageError
from nfox.plain_reply import Parting
from nfox.race import Race, Run, compare, pieces_of, record
from nfox.reply import Reply, Settings, Update
from nfox.reply_stream import ReplyStream
from nfox.text.pieces import text_of

TOKENS = 31
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cli_model.save(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def engine(model: Path) -> Engine:
    return load(str(model), method="none", settings=Settings(max_new_tokens=TOKENS))


@pytest.fixture(scope="module")
def race(engine: Engine) -> Race:
    entrants = parse(["none", "lookup:ngram=2"])
    screen = make_screen(DisplayArguments(), io.StringIO())
    return measure(engine, engine.request("hello"), entrants, screen, lambda line: None)


def ink(text: str) -> str:
    return terminals.bare(text)


def drawn(screen: Screen, picture: RacePicture, **when: Any) -> str:
    with screen.console.capture() as captured:
        screen.console.print(picture.frame(screen, **when))
    return captured.get()


def columns(screen: Screen, picture: RacePicture) -> list[str]:
    """Return the ink of the two columns of a finished race."""
    terminal = terminals.Terminal(screen.console.width, 100)
    frame = drawn(screen, picture, whole=True)
    pyte.Stream(terminal).feed(frame.replace("\n", "\r\n"))
    half = screen.console.width // 2
    return [ink("".join(row[a : a + half] for row in terminal.display)) for a in (0, half)]


def test_each_column_has_its_numbers_and_its_whole_text(engine: Engine, race: Race) -> None:
    screen = make_screen(DisplayArguments(color="always"), terminals.Tty())
    screen.console.width = 80
    plain, drafted = columns(screen, RacePicture(race, engine.model.tokenizer))
    assert plain.startswith("none") and "thereference" in plain and "·31tokThe" in plain
    assert drafted.startswith("lookup:ngram=2") and "identicaltonone" in drafted
    for column in (plain, drafted):
        assert "[red]notred[/red]" in column and "\x1b" not in column
        assert "untilthen." in column and "[31mloud]0;title#" in column


@pytest.mark.parametrize("width", [20, 40, 57, 80, 120, 200])
@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_every_width_has_all_columns(
    engine: Engine,
    race: Race,
    width: int,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in ({"TERM": "xterm-256color"} | environment).items():
        monkeypatch.setenv(name, value)
    screen = make_screen(DisplayArguments(), terminals.Tty())
    screen.console.width, screen.console.height = width, 24
    assert screen.live is ("TERM" not in environment)
    picture = RacePicture(Race((*race.runs, *race.runs)), engine.model.tokenizer)
    whole = drawn(screen, picture, whole=True)
    codes = {int(n) for found in re.findall(r"\x1b\[([\d;]+)m", whole) for n in found.split(";")}
    assert bool(codes & {*range(30, 39), *range(90, 98)}) == (environment == {})
    assert (4 in codes) == ("TERM" not in environment)
    rows = re.sub(r"\x1b\[[0-9;]*m", "", whole).splitlines()
    assert max(map(cell_len, rows)) <= width
    words = "".join(rows).split()
    assert (words.count("quick"), words.count("then.")) == (8, 4)
    assert words.count("lookup:ngram=2") == 4  # above each text and below it
    moving = drawn(screen, picture, seconds=min(run.moments[1].seconds for run in race.runs))
    assert width < 40 or len(moving.splitlines()) < 24


@pytest.mark.parametrize("width", [40, 80])
def test_a_race_with_much_to_say_below_it_stays_on_the_screen(
    width: int, engine: Engine, race: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = make_screen(DisplayArguments(), terminals.Tty())
    screen.console.width, screen.console.height = width, 24
    monkeypatch.setattr(RacePicture, "_foot", lambda *_: Text("word " * 200))
    for runs in (race.runs, (*race.runs, *race.runs)):
        for seconds in (0.0, None):
            shown = drawn(screen, RacePicture(Race(runs), engine.model.tokenizer), seconds=seconds)
            assert len(shown.splitlines()) < 24 and "none" in shown


def test_each_theme_has_its_colours(
    engine: Engine, race: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLORFGBG", "0;15")
    for theme, palette in (("auto", "light"), ("dark", "dark"), ("light", "light")):
        screen = make_screen(DisplayArguments(color="always", theme=theme), io.StringIO())
        screen.console._color_system = ColorSystem.TRUECOLOR
        shown = drawn(screen, RacePicture(race, engine.model.tokenizer))
        red, green, blue = (int(PALETTES[palette].corrected[n : n + 2], 16) for n in (1, 3, 5))
        assert f"38;2;{red};{green};{blue}" in shown, theme


def test_a_frame_shows_what_there_was_at_its_moment(engine: Engine, race: Race) -> None:
    picture = RacePicture(race, engine.model.tokenizer)
    screen = make_screen(DisplayArguments(), io.StringIO())
    begin = drawn(screen, picture, seconds=0.0)
    assert begin.count("…") == 2 and "quick" not in begin
    first = race.runs[0]
    middle = drawn(screen, picture, seconds=first.moments[3].seconds)
    assert "4 tok" in middle and "brown" in middle and "reference" not in middle
    assert drawn(screen, picture, seconds=race.seconds) == drawn(screen, picture)


def test_an_empty_reply_is_one(engine: Engine, race: Race) -> None:
    first, second = race.runs
    empty = replace(second, reply=Reply("lookup", finish="stop"), moments=())
    picture = RacePicture(Race((first, empty)), engine.model.tokenizer)
    assert "empty reply" in drawn(make_screen(DisplayArguments(), io.StringIO()), picture)
    assert "(an\u00a0empty\u00a0reply)" in animated(picture, "hello")


def test_a_race_is_played_and_leaves_nothing(engine: Engine, race: Race) -> None:
    screen = make_screen(DisplayArguments(), terminals.Tty())
    RacePicture(race, engine.model.tokenizer).play(screen)
    file = screen.console.file
    assert isinstance(file, io.StringIO)
    terminal = terminals.Terminal(screen.console.width, 40)
    pyte.Stream(terminal).feed(file.getvalue().replace("\n", "\r\n"))
    assert "quick" in file.getvalue() and not "".join(terminal.display).strip()


def test_who_answers_is_shown_meanwhile(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nfox.cli.display.race_picture.FRAME", 0.0)
    screen, told = make_screen(DisplayArguments(), terminals.Tty()), list[str]()
    measure(engine, engine.request("hello"), parse(["none", "lookup"]), screen, told.append)
    file = screen.console.file
    assert isinstance(file, io.StringIO) and not told
    for method in ("none", "lookup"):
        assert f"answering with {method} · 31 tok · " in file.getvalue()
    terminal = terminals.Terminal(screen.console.width, 40)
    pyte.Stream(terminal).feed(file.getvalue().replace("\n", "\r\n"))
    assert not "".join(terminal.display).strip()


def test_a_difference_is_shown_by_its_tokens(engine: Engine, race: Race) -> None:
    first, second = race.runs
    ids = [*second.reply.ids[:1], second.reply.ids[0], *second.reply.ids[2:]]
    other = Race((first, replace(second, reply=replace(second.reply, ids=ids, text="Other."))))
    results = RaceResults(other, engine.model.tokenizer)
    words = "differs from token 2 on: _The, none says _quick"
    assert results.verdict(other.runs[1], ASCII) == words
    assert list(results.texts()) == [sanitize(cli_model.said(TOKENS)), "Other."]
    explained = compare(engine, engine.request("hello"), other.runs)
    assert results.verdict(explained.runs[1], ASCII) == f"{words} (no near-tie: a bug)"
    tie = replace(other.runs[1], parting=Parting(1, 0, 0, 0.1, 0.2))
    assert results.verdict(tie, ASCII) == f"{words} (a near-tie)"
    results = RaceResults(replace(other, follows_drafts=True), engine.model.tokenizer)
    assert results.verdict(other.runs[1], ASCII) == f"{words} (its acceptance allows that)"


def test_a_speed_up_that_cannot_be_is_told(engine: Engine, race: Race) -> None:
    plain, drafted = race.runs
    for seconds, told in ((1e-9, True), (1e9, False)):
        stats = replace(drafted.reply.stats, seconds=seconds)
        run = replace(drafted, reply=replace(drafted.reply, stats=stats))
        rows = RaceResults(replace(race, runs=(plain, run)), None).table(ASCII)
        assert ("other programs ran meanwhile: so much cannot be gained" in rows[2]) is told


def test_a_recording_plays_to_the_last_frame(engine: Engine, race: Race) -> None:
    picture = RacePicture(race, engine.model.tokenizer)
    head, *events = map(json.loads, recording(picture).splitlines())
    assert head["version"] == 2 and (head["width"], head["height"]) == (80, 24)
    times = [seconds for seconds, _, _ in events]
    assert times == sorted(times) and times[0] == 0
    assert times[-2] == pytest.approx(race.seconds * picture.slowness, abs=0.001)
    assert times[-1] > times[-2] > 1.3  # nobody would see a shorter one
    assert f"{picture.slowness} times slower" in picture.note
    assert {kind for _, kind, _ in events} == {"o"}
    drawing = "".join(data for _, _, data in events)
    assert drawing.rindex("\x1b[?25h") > drawing.rindex("\x1b[?25l")
    terminal = terminals.Terminal(80, 24)
    stream = pyte.Stream(terminal)
    for _, _, data in events:
        stream.feed(data)
    shown = ink("".join(terminal.display))
    assert "identicaltonone" in shown and "[red]notred[/red]" in shown
    assert ink(picture.note)[-20:] in shown


def seen(svg: str, second: float) -> list[str]:
    """Return what is uncovered in each column of an animated picture at a second."""
    found = []
    for column in ElementTree.fromstring(svg).iterfind(f"{SVG}svg"):
        [motion] = column.iter(f"{SVG}animateTransform")
        times = [float(time) for time in motion.attrib["keyTimes"].split(";")]
        places = [(*map(int, place.split()),) for place in motion.attrib["values"].split(";")]
        assert times == sorted(times) and times[0] == 0 and len(times) == len(places)
        now = second / float(motion.attrib["dur"].removesuffix("s"))
        cell, row = places[bisect_right(times, now + 2e-4) - 1]
        lines = {}
        for line in column.iterfind(f"{SVG}text"):
            lines[(int(line.attrib["y"]) - 13) // 18] = text = "".join(line.itertext())
            assert cell_len(text) * 8 == int(line.attrib["textLength"]) and " " not in text
            assert cell_len(text) * 8 <= int(column.attrib["width"])
        shown = [text for number, text in lines.items() if number < row]
        found.append(ink("".join([*shown, set_cell_size(lines.get(row, ""), cell)])))
    return found


def test_a_moving_picture_uncovers_what_was_said_by_then(engine: Engine, race: Race) -> None:
    picture = RacePicture(race, engine.model.tokenizer)
    svg = animated(picture, "hello <b>&\n\x1b[31m world")
    assert "&gt; hello &lt;b&gt;&amp; [31m world" in svg and "http" not in svg[40:]
    for number, run in enumerate(race.runs):
        for second in (0.0, *(moment.seconds for moment in run.moments[::4]), run.seconds):
            uncovered = seen(svg, second * picture.slowness)[number]
            said = ink(clean(text_of(pieces_of(run.until(second)))))
            assert uncovered.startswith(said)
            assert (uncovered == said) == (second < run.seconds)
    assert all("#" in column for column in seen(svg, 99.0))
    for source in ("accepted", "corrected"):
        is_there = any(p.source == source for run in race.runs for p in pieces_of(run.moments))
        assert (f'class="{source[0]}"' in svg) is is_there


def test_a_race_that_is_stopped_says_where_each_stood(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupting(name: str, drafter: Method, stream: ReplyStream, on_step: Any) -> Run:
        updates = stream.updates

        def some() -> Iterator[Update]:
            for number, update in enumerate(updates()):
                if name == "jacobi" and number == 2:
                    signal.raise_signal(signal.SIGINT)
                yield update

        monkeypatch.setattr(stream, "updates", some)
        return record(name, drafter, stream, on_step)

    monkeypatch.setattr(racing, "record", interrupting)
    entrants, told = parse(["none", "jacobi", "lookup"]), list[str]()
    screen = make_screen(DisplayArguments(), io.StringIO())
    stopped = measure(engine, engine.request("hello"), entrants, screen, told.append)
    assert told == ["answering with none", "answering with jacobi"]
    assert [run.is_complete for run in stopped.runs] == [True, False, False]
    picture = RacePicture(stopped, engine.model.tokenizer)
    assert not show(picture, screen, told.append)
    _, none, jacobi, lookup, note = told[3:]
    assert none.split()[:2] == ["none", "1"] and none.split()[-1] == "reference"
    assert jacobi.split()[1] == "-" and jacobi.endswith(" stopped")
    assert int(jacobi.split(" tok/s")[0].split()[-2]) > 0 if " tok/s" in jacobi else True
    assert lookup.endswith("not begun") and lookup.count("-") == 6 and "shown together" not in note


def test_a_show_that_is_stopped_says_where_it_was_and_what_was_measured(
    engine: Engine, race: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = 0

    def sleep(seconds: float) -> None:
        nonlocal frames
        frames += 1
        if frames == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("nfox.cli.display.race_picture.time.sleep", sleep)
    screen, told = make_screen(DisplayArguments(), terminals.Tty()), list[str]()
    assert not show(RacePicture(race, engine.model.tokenizer), screen, told.append)
    assert told[0] == "stopped; what was measured:" and "identical to none" in told[3]
    file = screen.console.file
    assert isinstance(file, io.StringIO) and file.getvalue().count("\x1b[?7h") == 1


def test_a_race_that_was_measured_stays_where_the_reason_of_a_difference_is_not_waited_for(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(racing, "compare", interrupted)
    screen, told = make_screen(DisplayArguments(), io.StringIO()), list[str]()
    measured = measure(
        engine, engine.request("hello"), parse(["none", "lookup"]), screen, told.append
    )
    assert measured.is_complete and [run.name for run in measured.runs] == ["none", "lookup"]
    assert told[-1] == "stopped looking for why texts differ"


@pytest.mark.parametrize(
    "names", [["none"], ["none"] * 5, ["none", "nosuch"], ["none", "lookup:x=1"]]
)
def test_what_cannot_race_is_refused(names: list[str]) -> None:
    with pytest.raises(UsageError):
        parse(names)


def test_a_model_races_its_own_method_against_plain_decoding(engine: Engine) -> None:
    plain, method = usual_methods(engine)
    assert plain == "none" and method != "none"


def test_the_command_prints_a_table_and_the_texts(model: Path, tmp_path: Path) -> None:
    cast = tmp_path / "race.cast"
    svg = tmp_path / "race.svg"
    words = ["race", "hello", "--model", str(model), "--methods", "none,lookup"]
    files = ["--cast", str(cast), "--svg", str(svg)]
    done = CliRunner().invoke(program, [*words, "--max-new-tokens", "6", *files])
    assert done.exit_code == 0, done.output
    head, *rows = done.stdout.splitlines()
    assert head.split()[:4] == ["method", "place", "time", "tok/s"]
    assert rows[0].startswith("none ") and rows[1].endswith("identical to none")
    assert rows[3] == "none, lookup:" and rows[4].startswith("The quick brown fox")
    assert "measured one after the other" in done.stderr
    assert cast.read_text().startswith('{"version": 2')
    assert "&gt; hello" in svg.read_text()
    done = CliRunner().invoke(program, [*words, "--svg", str(tmp_path / "race.gif")])
    assert done.exit_code == 2 and "end its name in .svg" in done.stderr
    done = CliRunner().invoke(program, [*words[:2], "--methods", "none"])
    assert done.exit_code == 2 and "expected 2 to 4 methods" in done.stderr


def until(chat: Chat, words: str) -> terminals.Terminal:
    """Return the screen when it shows some words, or the program has ended."""
    screen = terminals.Terminal(80, 24)
    stream = pyte.ByteStream(screen)
    end = time.monotonic() + 90
    while words not in "\n".join(screen.display) and time.monotonic() < end:
        if select.select([chat.ours], [], [], 0.1)[0]:
            stream.feed(os.read(chat.ours, 1 << 16))
    return screen


@pytest.mark.slow
def test_ctrl_c_stops_a_race_where_it_is(tmp_path: Path) -> None:
    words = ("race", "What can you do?", "--methods", "none,spec", "--threads", "1")
    with chatting(tmp_path, *words, "--svg", "race.svg") as chat:
        before = chat.settings()
        shown = "\n".join(until(chat, "I can chat").display)
        assert "answering" not in shown and "tok/s" in shown and "reference" not in shown
        chat.keys(b"\x03")
        shown = "\n".join(until(chat, "moving picture").display)
        assert "stopped; what was measured:" in shown and "identical to none" in shown
        assert chat.process.wait(30) == 130
        assert chat.settings() == before
    assert "I\u00a0can\u00a0chat" in (tmp_path / "work" / "race.svg").read_text()


@pytest.mark.slow
def test_ctrl_z_stops_a_race_and_its_clock(tmp_path: Path) -> None:
    words = ("race", "What can you do?", "--methods", "none,spec", "--threads", "1")
    with chatting(tmp_path, *words, prepare="job_control:under_a_shell") as chat:
        before = chat.settings()
        written = chat.until(b"none") + chat.until(b"I can chat")
        chat.keys(b"\x1a")
        written += chat.until(STOPPED)
        assert chat.settings() == before
        assert written.rindex(b"\x1b[?7h\x1b[?25h") > written.rindex(b"\x1b[?25l\x1b[?7l")
        terminal = terminals.Terminal(80, 24)
        pyte.ByteStream(terminal).feed(written)
        rest = "".join(terminal.display).replace(STOPPED.decode(), "").strip()
        assert rest == "$", "nothing of a frame is left"
        time.sleep(2.5)  # in which the whole of the race could be shown
        chat.keys(b"fg\n")
        again = chat.until(b"measured one after the other")
        assert again.count(b"\x1b[?2026h") > 5 and b"I can chat" in again
        assert chat.process.wait(30) == 0
        assert chat.settings() == before


@pytest.mark.slow
def test_a_race_in_a_chat(tmp_path: Path) -> None:
    with chatting(tmp_path, "--threads", "1") as chat:
        chat.until_prompt()
        chat.type("What can you do?")
        written = chat.type("/race none spec ctc").decode()
        assert "Traceback" not in written and "answering with ctc" in written
        screen = terminals.Terminal(80, 40)
        pyte.Stream(screen).feed(written)
        shown = ["".join(row[start : start + 26] for row in screen.display) for start in (0, 26)]
        assert "the reference" in shown[0] and "identical to none" in shown[1]
        for column in shown:
            assert all(words in column for words in ("tok/s", "I can chat", "#"))
        assert b"decode" in chat.type("/stats")
