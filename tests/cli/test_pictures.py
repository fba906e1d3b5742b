"""Pictures: what is drawn follows the numbers, on a terminal, in a pipe and in a file."""

from __future__ import annotations

import io
import json
from pathlib import Path
from xml.etree import ElementTree

import full_disk
import pytest
from rich.console import RenderableType
from rich.text import Text

from nfox.cli.display.head_pictures import accuracy_bars, accuracy_table, stacked_bar, tree_picture
from nfox.cli.display.pictures import check_file, draw, save
from nfox.cli.display.theme import ASCII, Symbols, make_screen
from nfox.cli.options.chat import DisplayArguments
from nfox.cli.output_files import check_out, write_out
from nfox.decoding import tree_shapes
from nfox.drafters.common import published_trees
from nfox.errors import NfoxError, UsageError

ACCURACY = [
    [0.6, 0.15, 0.05, 0.02, 0.01, 0.01],
    [0.4, 0.1, 0.05, 0.02, 0.01, 0.01],
    [0.3, 0.1, 0.02, 0.01, 0.01, 0.01],
]
WHOLE = len(stacked_bar([1.0], Symbols()).plain)


def drawn(picture: RenderableType, color: str = "auto", file: Path | None = None) -> str:
    """What is written to stdout, which is no terminal unless colours are asked for."""
    out = io.StringIO()
    draw(picture, make_screen(DisplayArguments(color=color), out))  # type: ignore[arg-type]
    if file:
        save(picture, file)
    return out.getvalue()


def written(file: Path) -> list[str]:
    """The lines of an SVG."""
    texts = [node for node in ElementTree.parse(file).iter() if node.tag.endswith("text")]
    rows: dict[float, str] = {}
    for node in texts:
        if "clip-path" in node.attrib:  # the title has none
            row = float(node.attrib["y"])
            rows[row] = rows.get(row, "") + (node.text or "")
    return [rows[y].replace("\xa0", " ").rstrip() for y in sorted(rows)]


def chances(lines: str) -> list[float]:
    """The shares that stand in a drawn tree, without the root's."""
    words = [word for word in lines.split() if word.endswith("%")]
    return [float(word.rstrip("%")) / 100 for word in words][1:]


@pytest.mark.parametrize("symbols", [Symbols(), ASCII])
def test_bars_are_as_long_as_the_numbers_are_large(symbols: Symbols) -> None:
    for shares in ([0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.25, 0.5, 0.2], [0.333, 0.333, 0.333]):
        line = stacked_bar(shares, symbols).plain
        for share, shade in zip(shares, symbols.shades, strict=True):
            assert abs(line.count(shade) - share * WHOLE) <= 1
        assert abs(len(line) - sum(shares) * WHOLE) <= 0.5
        assert line == "".join(sorted(line, key=symbols.shades.index))


def test_every_depth_has_its_numbers_and_its_bar() -> None:
    table = accuracy_table(ACCURACY)
    head, *rows = drawn(accuracy_bars(table, ACCURACY, Symbols())).splitlines()
    assert all(shade in head for shade in Symbols().shades)
    assert len(rows) == len(ACCURACY)
    for row, line, ranks in zip(rows, table.splitlines()[1:], ACCURACY, strict=True):
        assert row.startswith(line)
        assert len(row.split()[-1]) == round(sum(ranks) * WHOLE)


def test_a_node_is_reached_as_often_as_all_of_its_path_is_right() -> None:
    shape = tree_shapes.TreeShape(((0,), (1,), (0, 0), (0, 2), (0, 0, 1)))
    text = drawn(tree_picture(shape, ACCURACY, Symbols()))
    assert chances(text) == pytest.approx([0.6, 0.24, 0.024, 0.03, 0.15], abs=1e-3)
    ranks = [line.split("rank ")[1].split()[0] for line in text.splitlines()[1:]]
    assert ranks == ["1", "1", "2", "3", "2"]
    assert shape.path_probabilities(ACCURACY) == pytest.approx([0.6, 0.15, 0.24, 0.03, 0.024])


@pytest.mark.parametrize("nodes", [0, 1, 7, 30])
def test_what_the_nodes_promise_is_what_the_tree_does(nodes: int) -> None:
    shape = tree_shapes.fastest_shape(ACCURACY, None, max_nodes=nodes)
    accepted = shape.expected_tau(ACCURACY) - 1
    assert sum(shape.path_probabilities(ACCURACY)) == pytest.approx(accepted)
    text = drawn(tree_picture(shape, ACCURACY, Symbols()))
    assert len(text.splitlines()) == 1 + nodes
    assert sum(chances(text)) == pytest.approx(accepted, abs=nodes * 5e-4)


def test_a_large_tree_is_drawn_without_its_least_likely_nodes() -> None:
    shape = tree_shapes.fastest_shape(ACCURACY, None, max_nodes=63)
    lines = drawn(tree_picture(shape, ACCURACY, Symbols(), max_nodes=20)).splitlines()
    kept = sorted(shape.path_probabilities(ACCURACY), reverse=True)[:20]
    assert sorted(chances("\n".join(lines)), reverse=True) == pytest.approx(kept, abs=1e-3)
    assert lines[-1] == "and 43 less likely nodes"
    assert len(lines) == 1 + 20 + 1
    assert len(drawn(tree_picture(shape, ACCURACY, Symbols())).splitlines()) <= 40


def test_a_pipe_gets_the_same_text_without_codes() -> None:
    shape = tree_shapes.fastest_shape(ACCURACY, None, max_nodes=9)
    picture = tree_picture(shape, ACCURACY, Symbols())
    piped, shown = drawn(picture), drawn(picture, color="always")
    assert "\x1b" not in piped
    assert "\x1b[" in shown
    assert Text.from_ansi(shown).plain.rstrip() == piped.rstrip()


def test_a_file_is_xml_and_shows_what_the_terminal_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")  # is about terminals
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "20")
    shape = tree_shapes.fastest_shape(ACCURACY, None, max_nodes=9)
    picture = tree_picture(shape, ACCURACY, Symbols())
    shown = drawn(picture, file=tmp_path / "a.svg")
    assert written(tmp_path / "a.svg") == [line.rstrip() for line in shown.splitlines()]
    svg = (tmp_path / "a.svg").read_text()
    assert "#56b4e9" in svg
    assert "url(http" not in svg.replace('"', ""), "to look at it takes no network"
    assert "ui-monospace" in svg


def test_a_file_is_as_wide_as_its_picture(tmp_path: Path) -> None:
    for width in (30, 300):
        text = "x" * width
        drawn(Text(text, "right"), file=tmp_path / "a.svg")
        assert written(tmp_path / "a.svg") == [text]


@pytest.mark.parametrize(
    ("name", "text"), [("a.png", "SVG"), ("a", "SVG"), ("absent/a.svg", "no folder")]
)
def test_what_cannot_be_written_is_refused_beforehand(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=text) as caught:
        check_file(tmp_path / name)
    assert "\n" not in str(caught.value)
    check_file(tmp_path / "a.SVG")
    check_file(None)


def test_a_result_has_a_place_before_it_is_measured(tmp_path: Path) -> None:
    for place, text in (
        ("absent/a.json", "no folder .*absent for the result"),
        ("", "is a folder"),
    ):
        with pytest.raises(UsageError, match=text):
            check_out(tmp_path / place)
    check_out(tmp_path / "a.json")
    check_out(None)
    assert list(tmp_path.iterdir()) == [], "to look makes no file"


def test_what_cannot_be_written_is_one_line_that_says_what_is_left(tmp_path: Path) -> None:
    with (
        full_disk.room(1000),
        pytest.raises(NfoxError, match=r"not written: .*; it is above") as said,
    ):
        write_out(tmp_path / "a.json", "x" * 2000, "it is above")
    assert "\n" not in said.value.message
    assert said.value.hint


def test_a_tree_is_read_from_what_measuring_wrote(tmp_path: Path) -> None:
    shape, file = tree_shapes.fastest_shape(ACCURACY, None, max_nodes=9), tmp_path / "out.json"
    file.write_text(json.dumps({"method": "some", "tree": shape.paths, "tau": 2.0}))
    assert set(published_trees.find_shape(str(file)).paths) == set(shape.paths)
    file.write_text(json.dumps({"method": "some"}))
    with pytest.raises(UsageError, match='an object with a "tree"'):
        published_trees.find_shape(str(file))
