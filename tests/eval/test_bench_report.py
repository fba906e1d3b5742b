"""The page and the plots of a benchmark show the figures of its result, and nothing else."""

from __future__ import annotations

import builtins
import importlib.util
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer
from full_disk import room
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from typer.testing import CliRunner

from nfox.cli.bench.report import check_report, report, write_report
from nfox.cli.options.dataclass_options import grouped
from nfox.errors import NfoxError, UsageError
from nfox.eval.bench.figures import EXPLAIN, DivergenceRow, Row, SimulationRow, StepTime
from nfox.eval.bench.result import BenchResult, EntrantRecord, Machine, read
from nfox.eval.report.page import page
from nfox.eval.report.plot_style import image
from nfox.eval.report.plots import PLOTS, plots


def row(method: str, speedup: float = 2.0, category: str = "all", **more: Any) -> Row:
    """Of a method, with figures that no other one has."""
    made: dict[str, Any] = {
        "target": "a model", "method": method, "category": category,
        "prompts": 7, "tokens": 700, "steps": 350, "tau": 1.5 * speedup,
        "tokens_per_second": 100.25 * speedup, "ttft_ms": 31.0,
        "speedup": speedup, "speedup_low": speedup - 0.25, "speedup_high": speedup + 0.5,
        "speedup_total": speedup - 0.125, "efficiency": 0.625, "identical": 1.0, "gap": 0.0,
        "accept_by_depth": [0.75, 0.5], "nodes": 4.5, "wide": 1.25, "drafting": 0.375,
        "predicted": speedup + 0.0625, "overhead": 0.03, "peak_memory_mb": 601.5, "too_long": 0,
        "time": StepTime(draft=1.0, target=8.0, verify=0.25, cache=0.5, host=0.125),
    }  # fmt: skip
    return Row(**(made | more))


def plain(**more: Any) -> Row:
    return row("none", 1.0, accept_by_depth=[], tau=1.0, **more)


def peer(name: str, speedup: float = 1.5, **more: Any) -> Row:
    unseen = dict.fromkeys(("nodes", "wide", "drafting", "predicted", "overhead", "time"))
    return row(name, speedup, accept_by_depth=[], **unseen, **more)


MACHINE = Machine(
    device="a processor", cores=2, threads=2, memory_gb=25.3, system="Linux", dtype="bfloat16",
    costs=None, nfox="0.1", commit=None, python="3.11", versions={"torch": "2.6"},
    command="nfox bench --methods all",
)  # fmt: skip


def result(*rows: Row, kinds: dict[str, str] | None = None, **more: Any) -> BenchResult:
    kinds = kinds or {}
    entrants = {
        name: EntrantRecord(kind=kinds.get(name, "method"), settings=f"how {name} is set")
        for name in dict.fromkeys(one.method for one in rows)
    }
    made: dict[str, Any] = {
        "machine": MACHINE, "settings": {"rounds": 3, "limit": None}, "entrants": entrants,
    }  # fmt: skip
    return BenchResult(rows=list(rows), **(made | more))


def spoiled(made: BenchResult, **more: Any) -> str:
    """Return the text of a file in which something else stands."""
    return json.dumps(json.loads(made.json_text()) | more)


def of_each(*methods: str, categories: tuple[str, ...]) -> list[Row]:
    """Rows of all tasks and of categories, with a speed-up that says which: 2, 3, ..."""
    return [
        plain(category=category) if method == "none" else row(method, 2.0 + place, category)
        for place, category in enumerate(("all", *categories))
        for method in methods
    ]


def widths(axes: Axes) -> list[list[float]]:
    bars = [one for one in axes.containers if isinstance(one, BarContainer)]
    return [[float(bar.get_width()) for bar in one] for one in bars]


def lines(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    """Points of every line that has a name."""
    named = (line for line in axes.get_lines() if not str(line.get_label()).startswith("_"))
    return {
        str(line.get_label()): [(float(x), float(y)) for x, y in line.get_xydata().tolist()]
        for line in named
    }


def y_names(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


SIMULATION = [
    SimulationRow(method="acceptance 0.6", acceptance=0.6, gamma=4, tau=2.25,
                  expected_tau=2.3, speedup=1.75, expected_speedup=1.875),
    SimulationRow(method="acceptance 0.8", acceptance=0.8, gamma=4, tau=3.25,
                  expected_tau=3.3, speedup=2.75, expected_speedup=None),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "names"),
    [
        (result(plain(time=None)), []),
        (result(plain(), row("spec")), ["speedup", "acceptance", "step-time"]),
        (result(plain(time=None), peer("hf")), ["speedup"]),
        (result(*of_each("none", "spec", categories=("a", "b"))),
         ["speedup", "tau-by-category", "acceptance", "step-time"]),
        (result(*of_each("none", "spec", categories=("context 128", "context 256"))),
         ["speedup", "acceptance", "context", "step-time"]),
        (result(*of_each("none", "spec", categories=("temperature 0", "temperature 0.7"))),
         ["speedup", "acceptance", "temperature", "step-time"]),
        (result(*of_each("none", "spec", categories=("context 128", "a"))),
         ["speedup", "acceptance", "step-time"]),
        (result(plain(), row("spec:gamma=1"), row("spec:gamma=2")),
         ["speedup", "acceptance", "step-time", "sweep"]),
        (result(plain(), row("medusa:tree=a"), row("medusa:tree=b"), row("spec:gamma=2")),
         ["speedup", "acceptance", "step-time"]),
        (result(plain(), row("acceptance 0.6", accept_by_depth=[]), simulation=SIMULATION),
         ["speedup", "step-time", "simulated"]),
    ],
)  # fmt: skip
def test_a_plot_is_there_where_the_result_has_something_for_it(
    made: BenchResult, names: list[str]
) -> None:
    assert list(plots(made)) == names


def test_speed_ups_are_bars_with_their_interval_and_the_color_of_their_kind() -> None:
    made = result(
        plain(), row("spec", 2.0), peer("hf", 1.5), row("acceptance 0.6", 3.0),
        kinds={"hf": "peer", "acceptance 0.6": "simulated"},
    )  # fmt: skip
    figure = plots(made)["speedup"]
    (axes,) = figure.axes
    assert y_names(axes) == ["spec", "hf", "acceptance 0.6"]
    assert widths(axes) == [[2.0, 1.5, 3.0]]
    bars = next(one for one in axes.containers if isinstance(one, BarContainer))
    assert bars.errorbar is not None
    (ranges,) = bars.errorbar[2]
    found = [[float(x) for x, _ in segment] for segment in ranges.get_segments()]
    assert found == [[1.75, 2.5], [1.25, 2.0], [2.75, 3.5]]
    assert len({bar.get_facecolor() for bar in bars}) == 3
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 3
    assert [1.0, 1.0] in [list(line.get_xdata()) for line in axes.get_lines()]


def test_a_bar_that_would_flatten_all_others_is_cut_and_says_how_long_it_is() -> None:
    for longest, others, end in ((9.74, (2.0, 1.5), 3.0), (2.4, (1.3, 0.5), 3.05), (4.0, (), 4.7)):
        rivals = [peer(f"rival {place}", speedup) for place, speedup in enumerate(others)]
        made = result(plain(), row("spec", longest), *rivals)
        (axes,) = plots(made)["speedup"].axes
        assert widths(axes)[0] == [longest, *others]
        assert axes.get_xlim() == pytest.approx((0, end), abs=0.1)
        assert f"{longest:.2f}" in [text.get_text() for text in axes.texts]
        marks = [line for line in axes.get_lines() if line.get_color() == "white"]
        assert len(marks) == (longest > end)


def test_other_programs_have_colours_of_their_own_and_what_is_simulated_comes_last() -> None:
    names = ["hf", "llama.cpp", "hf-lookup", "llama.cpp q4_0"]
    made = result(
        *(peer(name, 2.0 + place) for place, name in enumerate(names)),
        plain(), row("spec", 3.5), row("replay, gamma 7", 9.0),
        kinds=dict.fromkeys(names, "peer") | {"replay, gamma 7": "simulated"},
    )  # fmt: skip
    order = ["llama.cpp q4_0", "hf-lookup", "spec", "llama.cpp", "hf", "none", "replay, gamma 7"]
    (axes,) = plots(made)["speedup"].axes
    assert y_names(axes) == [name for name in order if name != "none"]
    shades = [bar.get_facecolor() for bar in axes.containers[1]]
    assert shades[0] == shades[3] and shades[1] == shades[4] and len({*shades}) == 4
    text = page(made)
    assert [line[0] for line in cells(text, "together")] == order
    marks = re.findall(r'<i class="(p\d)" title="([\w.]+)"></i>', text)
    assert {*marks} == {
        ("p0", "nfox"),
        ("p1", "llama.cpp"),
        ("p2", "transformers"),
        ("p3", "simulated"),
    }


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row("spec", 2.25, speedup_low=2.05, speedup_high=2.45), row("ctc", 1.5)],
         "spec answers 2.25x (2.05-2.45) as fast as plain decoding, with the same text in all "
         "conversations."),
        ([row("spec", 2.25, identical=0.5, prompts=1, speedup_low=2.25, speedup_high=2.25)],
         "spec answers 2.25x (one prompt) as fast as plain decoding, with the same text in 50% of "
         "the conversations."),
        ([row("spec", 1.2, speedup_low=0.9)],
         "spec answers 1.20x (0.90-1.70) as fast as plain decoding, which may be chance."),
        ([row("spec", 0.8, speedup_low=None)],
         "No method is faster than plain decoding here: spec has 0.80x."),
        ([row("replay, gamma 7", 9.0), row("spec", 2.0, speedup_low=None, identical=None),
          peer("hf", 3.0)],
         "spec answers 2.00x as fast as plain decoding. The fastest other program, hf, has 3.00x "
         "(2.75-3.50)."),
        ([], None),
    ],
)  # fmt: skip
def test_the_page_begins_with_what_came_of_it(rows: list[Row], said: str | None) -> None:
    kinds = {"hf": "peer", "replay, gamma 7": "simulated"}
    found = re.findall(r'<p class="lead">(.*)</p>', page(result(plain(), *rows, kinds=kinds)))
    assert found == ([] if said is None else [said])


def test_plots_on_the_page_are_dark_where_the_page_is() -> None:
    text = page(result(plain(), row("spec")))
    (speedup, *_) = re.findall("<svg.*?</svg>", text, re.DOTALL)
    assert "var(--ink)" in speedup and "var(--line)" in speedup and "var(--back)" in speedup
    assert not re.search("#(222222|ffffff|e4e4e4|000000)", speedup)
    assert all("fill: " in style for style in re.findall(r'<text style="([^"]*)"', speedup))


def test_tau_is_drawn_for_every_category_of_its_own() -> None:
    rows = of_each("none", "spec", "ctc", categories=("a", "context 128", "b"))
    rows = [one for one in rows if (one.method, one.category) != ("ctc", "b")]
    (axes,) = plots(result(*rows))["tau-by-category"].axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]
    assert y_names(axes) == ["spec", "ctc"]
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    assert shown == {(0, 0): "4.5", (0, 1): "4.5", (1, 0): "7.5"}
    shades = {bar.get_xy(): bar.get_facecolor()[3] for bar in axes.patches}  # type: ignore[attr-defined]
    assert shades[-0.5, -0.5] == shades[-0.5, 0.5] < shades[0.5, -0.5]


@pytest.mark.slow
def test_lines_go_through_the_figures() -> None:
    (axes,) = plots(result(plain(), row("spec"), peer("hf")))["acceptance"].axes
    assert lines(axes) == {"spec": [(1, 0.75), (2, 0.5)]}
    rows = of_each("none", "spec", categories=("context 256", "context 128"))
    (axes,) = plots(result(*rows))["context"].axes
    assert axes.get_xscale() == "log"
    assert lines(axes) == {
        "none": [(128, 100.25), (256, 100.25)],
        "spec": [(128, 401.0), (256, 300.75)],
    }
    rows = of_each("none", "spec", categories=("temperature 0", "temperature 0.7"))
    (axes,) = plots(result(*rows))["temperature"].axes
    assert lines(axes) == {"spec": [(0, 3), (0.7, 4)]}


def test_a_sweep_has_a_line_for_each_method_with_its_other_options() -> None:
    made = result(
        plain(), row("spec"), row("spec:gamma=2", 3), row("spec:gamma=1", 2),
        row("spec:branches=1:gamma=1", 4), row("spec:gamma=2:branches=1", 5),
    )  # fmt: skip
    speed, tau = plots(made)["sweep"].axes
    assert (speed.get_xlabel(), tau.get_xlabel()) == ("gamma", "gamma")
    assert lines(speed) == {"spec": [(1, 2), (2, 3)], "spec:branches=1": [(1, 4), (2, 5)]}
    assert lines(tau) == {"spec": [(1, 3), (2, 4.5)], "spec:branches=1": [(1, 6), (2, 7.5)]}


def test_parts_of_a_step_are_stacked_and_expected_speeds_stand_beside_measured_ones() -> None:
    made = result(plain(), row("spec"), peer("hf"), simulation=SIMULATION)
    (axes,) = plots(made)["step-time"].axes
    assert y_names(axes) == ["spec", "none"]
    assert widths(axes) == [[1.0, 1.0], [8.0, 8.0], [0.25, 0.25], [0.5, 0.5], [0.125, 0.125]]
    starts = [[bar.get_x() for bar in one] for one in axes.containers]  # type: ignore[attr-defined]
    assert starts == [[0, 0], [1, 1], [9, 9], [9.25, 9.25], [9.75, 9.75]]
    (axes,) = plots(made)["simulated"].axes
    found = lines(axes)
    assert found["measured"] == [(1.75, 0), (2.75, 1)]
    assert found["expected from the costs"][0] == (1.875, 0)
    assert found["expected from the costs"][1][0] != found["expected from the costs"][1][0]  # nan


def cut(figure: Figure) -> list[str]:
    """Words that are not whole within a figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    draw, whole = FigureCanvasAgg(figure).get_renderer(), figure.bbox.padded(1)
    words = [one for one in figure.findobj(Text) if re.search("[a-z]", one.get_text())]
    words += [one for axes in figure.axes for one in axes.texts]  # figures beside bars, too
    boxes = {one.get_text(): one.get_window_extent(draw) for one in words}
    return [
        text for text, box in boxes.items()
        if box.x0 < whole.x0 or box.x1 > whole.x1 or box.y0 < whole.y0 or box.y1 > whole.y1
    ]  # fmt: skip


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Neighbours among the names at an axis that touch each other."""
    boxes = [
        (one.get_text(), one.get_window_extent())
        for axes in figure.axes for one in axes.get_yticklabels() if one.get_text()
    ]  # fmt: skip
    return [(a, b) for (a, one), (b, two) in pairwise(boxes) if one.overlaps(two)]


def test_long_and_odd_names_are_shown_as_they_are_and_whole() -> None:
    odd = ["$a$", "_under", "a & <b>", "spec:" + ":".join(f"option{n}=1" for n in range(9))]
    names = [*odd, *(f"method {n}" for n in range(9))]
    made = result(plain(), *(row(name) for name in names))
    drawn = plots(made)
    for figure in drawn.values():
        assert cut(figure) == []
        assert overlapping(figure) == []
    assert [name.replace("\n", "") for name in y_names(drawn["speedup"].axes[0])] == names
    for name in ("speedup", "step-time"):  # bars have their room beside the names
        figure = drawn[name]
        assert figure.axes[0].get_position().width * figure.get_figwidth() > 2.2
    (legend,) = drawn["acceptance"].legends
    assert [text.get_text().replace("\n", "") for text in legend.get_texts()] == names
    assert all(not text.get_parse_math() for text in legend.get_texts())


@pytest.mark.slow
def test_one_result_gives_one_picture_whatever_a_person_has_set() -> None:
    import matplotlib

    made = result(plain(), row("spec"))
    first = plots(made)
    pictures = [image(first["speedup"], kind) for kind in ("png", "svg")]
    with matplotlib.rc_context({"font.size": 20, "svg.fonttype": "path"}):
        again = plots(made)["speedup"]
        assert [image(again, "svg"), image(again, "png")] == pictures[::-1]
    assert b">spec</text>" in pictures[1]
    assert b"<dc:date" not in pictures[1]


class Seen(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.ids += [given["id"] or ""] if "id" in given else []
        loaded = ("src", "href", "xlink:href", "srcset", "data")
        self.references += [given[name] or "" for name in loaded if name in given]

    def handle_data(self, data: str) -> None:
        self.text += data


def cells(text: str, table: str) -> list[list[str]]:
    """Texts of a table's body, line by line."""
    (found,) = re.findall(rf'<table id="{table}">(.*?)</table>', text, re.DOTALL)
    return [
        [
            Seen(cell).text.strip()
            for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", line, re.DOTALL)
        ]
        for line in re.findall(r"<tr.*?>(.*?)</tr>", found.partition("<tbody>")[2], re.DOTALL)
    ]


def test_the_page_has_the_figures_and_nothing_where_there_are_none() -> None:
    made = result(
        plain(), row("spec", 2.0), peer("hf", 1.5, tau=None, identical=None),
        kinds={"hf": "peer"}, missing={"medusa": "needs trained heads"},
    )  # fmt: skip
    text = page(made)
    spec, hf, base, missing = cells(text, "together")
    assert base[:5] == ["none", "1.00", "0.75-1.50", "100.2", "1.00"]
    assert spec == ["spec", "2.00", "1.75-2.50", "200.5", "3.00", "100%"]
    assert hf == ["hf", "1.50", "1.25-2.00", "150.4", "", ""]
    assert cells(text, "costs")[:2] == [
        ["spec", "4.5", "1.25", "0.38", "2.06", "0.62"],
        ["hf", "", "", "", "", "0.62"],
    ]
    assert cells(text, "times")[0] == ["spec", "1.00", "8.00", "0.88", "3.0%", "31"]
    assert cells(text, "times")[1] == ["hf", "", "", "", "", "31"]
    assert cells(text, "counts")[0] == ["spec", "7", "700", "350", "0"]
    assert cells(text, "others")[0] == ["spec", "1.88", "602", "0.000"]
    assert missing == ["medusa", "did not run: needs trained heads"]
    assert cells(text, "settings")[0] == ["spec", "how spec is set"]
    assert cells(text, "depths") == [["spec", "0.75 0.50"]]
    said = Seen(text).text
    assert said.count("None") == said.count("None: every conversation that was compared") == 1
    assert "nan" not in said.split()
    assert "nfox bench --methods all" in said
    assert "not measured" in said  # the costs
    assert all(meaning in said for meaning in EXPLAIN.values())
    for name in plots(made):
        assert PLOTS[name].reading in said


def test_categories_simulation_and_divergences_are_on_the_page() -> None:
    rows = of_each("none", "spec", categories=("a", "b"))
    parted = [
        DivergenceRow(entrant="spec", task=f"task-{n}", reply=0, token=n, gap=n / 4)
        for n in range(4)
    ]
    text = page(result(*rows[:-1], simulation=SIMULATION, divergences=parted))
    assert cells(text, "category1") == [
        ["spec", "3.00", "2.75-3.50", "300.8", "4.50"],
        ["none", "1.00", "0.75-1.50", "100.2", "1.00"],
    ]
    assert [line[0] for line in cells(text, "category2")] == ["none"]
    assert "<b>a</b>: spec answers 3.00x (2.75-3.50) as fast" in text
    assert "<b>b</b></summary>" in text
    assert cells(text, "simulation")[0] == [
        "acceptance 0.6", "0.60", "4", "2.25", "2.30", "1.75", "1.88",
    ]  # fmt: skip
    assert cells(text, "simulation")[1][-1] == ""
    listed = [line[1] for line in cells(text, "divergences")]
    assert listed == ["task-3", "task-2", "task-1", "task-0"]
    said = Seen(text)
    assert "4 conversations part" in said.text
    assert "0.750 (spec, task-3, token 3)" in said.text
    assert "details" in said.tags


def test_everything_is_escaped_and_nothing_is_loaded_from_elsewhere() -> None:
    evil = "<script>alert(1)</script>"
    rows = of_each("none", evil, categories=(f"a {evil}", "b"))
    machine = {"command": evil, "device": evil, "versions": {evil: evil}}
    made = result(
        *(one.model_copy(update={"target": evil}) for one in rows),
        machine=MACHINE.model_copy(update=machine), settings={evil: evil},
        entrants={evil: EntrantRecord(kind="peer", settings=evil)}, missing={f"x{evil}": evil},
        simulation=[one.model_copy(update={"method": evil}) for one in SIMULATION],
        divergences=[DivergenceRow(entrant=evil, task=evil, reply=0, token=1, gap=0.5)],
    )  # fmt: skip
    seen = Seen(page(made))
    assert "script" not in seen.tags
    assert seen.text.count(evil) > 15
    assert all(reference.startswith("#") for reference in seen.references)
    assert not {"link", "img", "iframe", "object"} & set(seen.tags)
    assert len(seen.ids) == len(set(seen.ids))
    assert {reference[1:] for reference in seen.references} <= set(seen.ids)


def test_a_result_that_lacks_newer_figures_is_shown(tmp_path: Path) -> None:
    kept = {"target", "method", "category", "prompts", "tau", "speedup"}
    rows = [one.model_dump(include=kept) for one in (plain(), row("spec", 2.0))]
    content = {"schema": "nfox.bench/1", "machine": {}, "settings": {}, "rows": rows}
    made = read(written(tmp_path, json.dumps(content)), BenchResult)
    assert cells(page(made), "together") == [["spec", "2.00", "3.00"], ["none", "1.00", "1.00"]]
    assert cells(page(made), "counts") == [["spec", "7"], ["none", "7"]]
    assert list(plots(made)) == ["speedup"]


def without_matplotlib(patch: pytest.MonkeyPatch) -> None:
    found, importing = importlib.util.find_spec, builtins.__import__

    def find(name: str, *rest: Any) -> Any:
        return None if name == "matplotlib" else found(name, *rest)

    def load(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(name)
        return importing(name, *rest, **more)

    patch.setattr(importlib.util, "find_spec", find)
    patch.setattr(builtins, "__import__", load)


def test_without_matplotlib_there_is_a_page_and_no_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_matplotlib(monkeypatch)
    made = result(plain(), row("spec"))
    check_report(tmp_path / "page.html", None)
    write_report(made, tmp_path / "page.html", None)
    said = (tmp_path / "page.html").read_text()
    assert "no plots on this page" in said
    assert "nfox[bench]" in said
    assert "<svg" not in said
    for asked in (lambda: check_report(None, tmp_path / "plots"), lambda: plots(made)):
        with pytest.raises(UsageError, match="matplotlib") as caught:
            asked()
        assert "nfox[bench]" in caught.value.hint
    assert not (tmp_path / "plots").exists()


app = typer.Typer()
app.command()(grouped(report))


def run(*words: object) -> Any:
    return CliRunner().invoke(app, [*map(str, words)])


def written(folder: Path, made: BenchResult | str) -> Path:
    file = folder / "result.json"
    file.write_text(made if isinstance(made, str) else made.json_text())
    return file


@pytest.mark.slow
def test_the_command_writes_both_and_says_so(tmp_path: Path) -> None:
    made = result(plain(time=None), peer("hf"))
    file, folder = written(tmp_path, made), tmp_path / "plots"
    for _ in range(2):  # what is there is written anew
        done = run(file, "--html", tmp_path / "page.html", "--plots", folder)
        assert done.exit_code == 0, done.output
    assert str(tmp_path / "page.html") in done.stdout
    assert str(folder) in done.stdout
    names = list(plots(made))
    assert all(name in done.stdout for name in names)
    kinds = [f"{name}.{kind}" for name in names for kind in ("svg", "png")]
    assert {found.name for found in folder.iterdir()} == set(kinds)
    assert (folder / "speedup.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "page.html").read_text() == page(made)
    done = run(written(tmp_path, result(plain(time=None))), "--plots", tmp_path / "none")
    assert "no plots" in done.stdout


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("\udcff", "not UTF-8: byte 0xff at offset 0"),
        ("[1]", "its schema is not said"),
        ("{}", "its schema is not said"),
        ('{"schema": "nfox.bench/9", "rows": [1]}', "nfox.bench/9"),
        (spoiled(result(plain()), rows=[]), "rows: List should have at least 1"),
        (spoiled(result(plain()), rows=[plain().model_dump() | {"time": [1]}]), "rows.0.time"),
        (spoiled(result(plain()), simulation=[{}]), "simulation.0.method"),
        (spoiled(result(plain()), divergences=[1]), "divergences.0"),
        (None, "No such file"),
    ],
)
def test_what_is_no_result_is_one_line(content: str | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    if content is not None:
        file.write_bytes(content.encode(errors="surrogateescape"))
    done = run(file, "--html", tmp_path / "page.html")
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 2  # with its hint
    assert not (tmp_path / "page.html").exists()


def test_mistakes_about_places_are_one_line_before_anything_is_written(tmp_path: Path) -> None:
    file = written(tmp_path, result(plain(), row("spec")))
    for words, said in (
        ((), "nothing to write"),
        (("--html", tmp_path / "no" / "page.html"), "no folder"),
        (("--plots", tmp_path / "no" / "plots"), "no folder"),
        (("--html", tmp_path / "page.html", "--plots", file), "is a file"),
        (("--html", tmp_path), "is a folder"),
    ):
        done = run(file, *words)
        assert done.exit_code == 2, done.output
        assert said in done.stderr
    assert [found.name for found in tmp_path.iterdir()] == ["result.json"]
    assert run("--html", tmp_path / "page.html").exit_code == 2  # no result is named


def test_a_full_disk_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = result(plain(time=None), peer("hf"))
    plots(made)  # matplotlib keeps a list of fonts, which has nothing to do with this
    for html, folder in ((tmp_path / "page.html", None), (None, tmp_path / "plots")):
        with room(4000), pytest.raises(NfoxError, match="stands above"):
            write_report(made, html, folder)
    assert "written" not in capfd.readouterr().out


def test_names_with_control_characters_give_a_page_and_plots_that_can_be_read(
    recwarn: pytest.WarningsRecorder,
) -> None:
    name = "\x1b]52;c;QUJD\x07\ufffeevil\nname<&$x_{$"
    rows = (plain(target=name), row(name, target=name))
    made = result(*rows, missing={f"missing {name}": name}, settings={"model": name, "rounds": 3})
    shown = page(made)
    assert "]52;c;QUJDevil name&lt;&amp;$x_{$" in shown
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe]", shown)
    drawn = re.findall("<svg.*?</svg>", shown, re.DOTALL)
    assert drawn and all(ElementTree.fromstring(svg).tag.endswith("svg") for svg in drawn)
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
