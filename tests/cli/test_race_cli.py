"""Races as they are shown: in columns, in a table, in a recording."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import cli_model
import pyte
import pytest
import terminals
from typer.testing import CliRunner

from nfox import load
from nfox.cli.app import app as program
from nfox.cli.chat.race import measure, parse, usual_methods
from nfox.cli.display.cast import recording
from nfox.cli.display.race_picture import RacePicture
from nfox.cli.display.theme import ASCII, Screen, make_screen
from nfox.cli.options.chat import DisplayArguments
from nfox.controls import sanitize
from nfox.engine import Engine
from nfox.errors import UsageError
from nfox.race import Race
from nfox.reply import Settings

TOKENS = 31


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cli_model.save(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def engine(model: Path) -> Engine:
    return load(str(model), method="none", settings=Settings(max_new_tokens=TOKENS))


@pytest.fixture(scope="module")
def race(engine: Engine) -> Race:
    entrants = parse(["none", "lookup:ngram=2"])
    found = measure(engine, engine.request("hello"), entrants, lambda line: None)
    assert found is not None
    return found


def ink(text: str) -> str:
    return terminals.bare(text)


def columns(screen: Screen, picture: RacePicture, *, whole: bool = True) -> list[str]:
    """Return the ink of the two columns of a finished race."""
    with screen.console.capture() as captured:
        screen.console.print(picture.frame(screen, whole=whole))
    terminal = terminals.Terminal(screen.console.width, 100)
    pyte.Stream(terminal).feed(captured.get().replace("\n", "\r\n"))
    half = screen.console.width // 2
    return [ink("".join(row[a : a + half] for row in terminal.display)) for a in (0, half)]


def test_each_column_has_its_numbers_and_its_whole_text(engine: Engine, race: Race) -> None:
    screen = make_screen(DisplayArguments(color="always"), terminals.Tty())
    screen.console.width = 80
    plain, drafted = columns(screen, RacePicture(race, engine.model.tokenizer))
    assert plain.startswith("none#") and "comparedwith" in plain and "31tokin" in plain
    assert drafted.startswith("lookup:ngram=2#") and "identicaltonone" in drafted
    for column in (plain, drafted):
        assert "[red]notred[/red]" in column and "\x1b" not in column
        assert "untilthen." in column and column.endswith("[31mloud]0;title")


def test_a_frame_shows_what_there_was_at_its_moment(engine: Engine, race: Race) -> None:
    picture = RacePicture(race, engine.model.tokenizer)
    screen = make_screen(DisplayArguments(), io.StringIO())

    def drawn(seconds: float) -> str:
        with screen.console.capture() as captured:
            screen.console.print(picture.frame(screen, seconds))
        return captured.get()

    assert drawn(0).count("reading") == 2 and "quick" not in drawn(0)
    first = race.runs[0]
    begun = drawn(first.moments[3].seconds)
    assert "4 tok" in begun and "brown" in begun and "#" not in begun.split()[0]
    assert drawn(race.seconds) == drawn(race.seconds + 100)


def test_a_race_is_played_and_leaves_nothing(engine: Engine, race: Race) -> None:
    screen = make_screen(DisplayArguments(), terminals.Tty())
    RacePicture(race, engine.model.tokenizer).play(screen)
    file = screen.console.file
    assert isinstance(file, io.StringIO)
    terminal = terminals.Terminal(screen.console.width, 40)
    pyte.Stream(terminal).feed(file.getvalue().replace("\n", "\r\n"))
    assert "reading" in file.getvalue() and not "".join(terminal.display).strip()


def test_a_difference_is_shown_by_its_tokens(engine: Engine, race: Race) -> None:
    first, second = race.runs
    ids = [*second.reply.ids[:1], second.reply.ids[0], *second.reply.ids[2:]]
    other = Race((first, replace(second, reply=replace(second.reply, ids=ids, text="Other."))))
    picture = RacePicture(other, engine.model.tokenizer)
    assert picture.verdict(other.runs[1], ASCII) == (
        "differs from token 2 on: _The, none says _quick"
    )
    assert list(picture.texts()) == [sanitize(cli_model.said(TOKENS)), "Other."]


def test_a_recording_plays_to_the_last_frame(engine: Engine, race: Race) -> None:
    picture = RacePicture(race, engine.model.tokenizer)
    head, *events = map(json.loads, recording(picture).splitlines())
    assert head["version"] == 2 and (head["width"], head["height"]) == (80, 24)
    times = [seconds for seconds, _, _ in events]
    assert times == sorted(times) and times[0] == 0
    assert times[-2] == pytest.approx(race.seconds * picture.slowness, abs=0.001)
    assert times[-1] > times[-2] >= 2  # nobody would see a shorter one
    assert f"{picture.slowness} times slower" in picture.note
    assert {kind for _, kind, _ in events} == {"o"}
    terminal = terminals.Terminal(80, 24)
    stream = pyte.Stream(terminal)
    for _, _, data in events:
        stream.feed(data)
    shown = ink("".join(terminal.display))
    assert "identicaltonone" in shown and "[red]notred[/red]" in shown
    assert ink(picture.note)[-20:] in shown


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
    words = ["race", "hello", "--model", str(model), "--methods", "none,lookup"]
    done = CliRunner().invoke(program, [*words, "--max-new-tokens", "6", "--cast", str(cast)])
    assert done.exit_code == 0, done.output
    head, *rows = done.stdout.splitlines()
    assert head.split()[:4] == ["method", "place", "time", "tok/s"]
    assert rows[0].startswith("none ") and rows[1].endswith("identical to none")
    assert rows[3] == "none, lookup:" and rows[4].startswith("The quick brown fox")
    assert "measured one after the other" in done.stderr
    assert cast.read_text().startswith('{"version": 2')
    done = CliRunner().invoke(program, [*words[:2], "--methods", "none"])
    assert done.exit_code == 2 and "expected 2 to 4 methods" in done.stderr
