"""What changed by more than noise, and what a guard cries at: results made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from math import inf, nextafter
from pathlib import Path
from typing import Any

import full_disk
import pytest
from typer.testing import CliRunner, Result

from nfox.cli.app import app
from nfox.errors import UsageError
from nfox.eval.bench.baseline import baseline
from nfox.eval.bench.compare import (
    Change,
    Rankings,
    changes,
    machines_differ,
    rankings,
    settings_differ,
)
from nfox.eval.bench.figures import Row
from nfox.eval.bench.guard import Check, guard
from nfox.eval.bench.noise import Interval
from nfox.eval.bench.result import (
    Baseline,
    BaselineMachine,
    BenchResult,
    EntrantRecord,
    File,
    Machine,
    read,
)

ROOT = Path(__file__).parent.parent.parent


def row(method: str, low: float, value: float, high: float, kind: str = "all", **more: Any) -> Row:
    """With a tau of 2, so that the efficiency is half of the speed-up."""
    usual: dict[str, Any] = {
        "target": "tiny", "method": method, "category": kind, "prompts": 50, "tau": 2.0,
        "tokens_per_second": 100 * value, "speedup": value, "speedup_low": low,
        "speedup_high": high, "identical": 1.0, "overhead": 0.02, "peak_memory_mb": 300.0,
    }  # fmt: skip
    made = usual | more
    return Row(**({"efficiency": made["tau"] and value / made["tau"]} | made))


def plainly(**more: Any) -> Row:
    return row("none", 1, 1, 1, tau=1.0, **more)


def result(*rows: Row, peers: Sequence[str] = (), **more: Any) -> BenchResult:
    machine = {"device": "a CPU", "threads": 2, "dtype": "bfloat16", "cores": 2}
    settings = {"prompts": "demo", "max_new_tokens": 64, "temperature": None, "stop": []}
    kinds = {one.method: "peer" if one.method in peers else "method" for one in rows}
    return BenchResult(
        machine=Machine(**(machine | more.pop("machine", {}))),
        settings=settings | {"model": "x/tiny"} | more.pop("settings", {}),
        entrants={name: EntrantRecord(kind=kind) for name, kind in kinds.items()},
        rows=list(rows),
        **more,
    )


def content(file: File) -> dict[str, Any]:
    """Return what stands in a file, to be spoiled."""
    made: dict[str, Any] = json.loads(file.json_text())
    return made


@pytest.mark.parametrize(
    ("file", "layout"),
    [("docs/benchmark/embedded.json", BenchResult), ("benchmarks/baseline.json", Baseline)],
)
def test_published_files_are_read_and_written_as_they_were(file: str, layout: type[File]) -> None:
    assert read(ROOT / file, layout).json_text() == (ROOT / file).read_text()


def test_what_is_no_number_is_not_known(tmp_path: Path) -> None:
    spoiled = content(result(row("spec", 1, 2, 3)))
    spoiled["rows"][0] |= {"tau": float("nan"), "overhead": float("inf")}
    (file := tmp_path / "result.json").write_text(json.dumps(spoiled))
    (read_row,) = read(file, BenchResult).rows
    assert read_row.tau is read_row.overhead is None
    assert read_row.speedup == 2


def only(found: Sequence[Change], method: str = "spec") -> Change:
    (change,) = [one for one in found if one.method == method]
    return change


def verdicts(old: Row, new: Row, **more: Any) -> dict[str, str]:
    """Of the figures of one row, in results of the same settings."""
    change = only(changes(result(old), result(new, **more)), old.method)
    return {figure.name: figure.verdict for figure in change.figures}


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ((2.21, 2.3, 2.4), "faster"),
        ((2.2, 2.3, 2.4), "within noise"),  # equal bounds overlap
        ((1.9, 2.1, 2.3), "within noise"),
        ((1.6, 1.7, 1.8), "within noise"),
        ((1.6, 1.7, 1.79), "slower"),
    ],
)
def test_a_speedup_changed_where_bounds_do_not_overlap(
    bounds: tuple[float, float, float], said: str
) -> None:
    change = only(changes(result(row("spec", 1.8, 2.0, 2.2)), result(row("spec", *bounds))))
    assert change.verdict == said
    assert change.beyond_noise == (said != "within noise")
    assert [figure.name for figure in change.figures][:2] == ["speedup", "efficiency"]
    assert change.figures[1].verdict == change.figures[0].verdict  # of the same tau


def test_efficiency_has_the_noise_of_the_speedup_and_its_own_tau() -> None:
    """As fast as before, with a tau of 3 instead of 2: 0.9-1.1 against 0.6-0.73."""
    found = verdicts(row("spec", 1.8, 2, 2.2), row("spec", 1.8, 2, 2.2, tau=3.0))
    assert (found["speedup"], found["efficiency"]) == ("within noise", "lower")


@pytest.mark.parametrize(
    ("prompts", "rounds", "judged"),
    [(1, 1, False), (5, 1, False), (6, 1, True), (2, 2, False), (3, 2, True)],
)
def test_bounds_of_few_conversations_judge_nothing(prompts: int, rounds: int, judged: bool) -> None:
    """The noise of 5 has one sign in 2 of 32 cases, which is more than the 5 % of bounds."""
    rows = [row("spec", x, x, x, prompts=prompts) for x in (3.0, 2.0)]
    settings = {"rounds": rounds}
    old, new = (result(one, plainly(prompts=prompts), settings=settings) for one in rows)
    found = {figure.name: figure.verdict for figure in only(changes(old, new)).figures}
    assert found["speedup"] == found["efficiency"] == ("lower" if judged else "not judged")
    assert rankings(old, new).alike == judged
    guarded = guard(baseline([old]), new)
    assert any(check.worse for check in guarded.checks) == judged
    said = "2 of 2 rows have fewer than 6 conversations: speedup, efficiency not judged there"
    assert guarded.notes == (() if judged else (said,))
    fewer = result(rows[1], settings=settings | {"prompts": "gsm8k"})
    assert only(changes(old, fewer)).verdict == ("slower" if prompts > 5 else "not judged")


@pytest.mark.parametrize(
    ("tau", "more", "said"),
    [
        (2.069, {}, "within noise"),  # 3 %, and a quarter of one of 50 prompts: 3.5 %
        (2.071, {}, "higher"),
        (1.931, {}, "within noise"),
        (1.929, {}, "lower"),
        (1.0, {"settings": {"prompts": "gsm8k"}}, "not judged"),
        (1.0, {"settings": {"temperature": 0.7}}, "not judged"),
        (1.0, {"machine": {"dtype": "float32"}}, "not judged"),
        (1.0, {"machine": {"threads": 4}}, "lower"),
    ],
)
def test_tau_is_judged_where_the_text_is_the_same(tau: float, more: Any, said: str) -> None:
    old, new = (row("spec", 1.8, 2, 2.2, tau=one) for one in (2.0, tau))
    assert verdicts(old, new, **more)["tau"] == said


def test_tau_is_not_judged_where_the_rule_of_acceptance_makes_the_text() -> None:
    old, new = (
        result(row("spec", 1, 2, 3, tau=tau), settings={"accept": "typical"}) for tau in (2.0, 3.0)
    )
    assert {f.name: f.verdict for f in only(changes(old, new)).figures}["tau"] == "not judged"
    fewer = row("spec", 1, 2, 3, tau=1.0, prompts=49)
    assert verdicts(row("spec", 1, 2, 3), fewer)["tau"] == "not judged"


@pytest.mark.parametrize(
    ("name", "was", "now", "said"),
    [
        # Of 50 each: 1.96 sqrt(0.97 * 0.03 / 25) = 0.067, 1.96 sqrt(0.95 * 0.05 / 25) = 0.085.
        ("identical", 1.0, 0.94, "within noise"),
        ("identical", 1.0, 0.90, "lower"),
        ("identical", 0.90, 1.0, "higher"),
        ("identical", 1.0, 1.0, "within noise"),
        # With 2 % of the loop's own, steps 5 % longer have 1 - 0.98 / 1.05 = 6.67 %.
        ("overhead", 0.02, 0.066, "within noise"),
        ("overhead", 0.02, 0.067, "higher"),
        ("overhead", 0.067, 0.02, "lower"),
        ("tokens_per_second", 100.0, 10.0, "not judged"),
        ("peak_memory_mb", 100.0, 900.0, "not judged"),
    ],
)
def test_other_figures_have_noise_of_their_own(name: str, was: Any, now: Any, said: str) -> None:
    old, new = (row("spec", 1, 2, 3, **{name: one}) for one in (was, now))
    assert verdicts(old, new)[name] == said


def test_rows_that_only_one_has_are_named() -> None:
    old = result(plainly(), row("spec", 1, 2, 3), row("spec", 1, 2, 3, "maths"))
    new = result(plainly(), row("spec", 1, 2, 3), row("lookup", 1, 2, 3))
    found = {(one.method, one.category): one.verdict for one in changes(old, new)}
    assert found == {
        ("none", "all"): "within noise",
        ("spec", "all"): "within noise",
        ("spec", "maths"): "only old",
        ("lookup", "all"): "only new",
    }


def test_what_differs_is_said_and_compared_all_the_same() -> None:
    old = result(row("spec", 1, 1.1, 1.2))
    new = result(
        row("spec", 2, 2.1, 2.2, target="other"),
        settings={"prompts": "gsm8k", "max_new_tokens": 128, "temperature": 0.7, "rounds": 9},
        machine={"threads": 4},
    )
    assert settings_differ(old, new) == [
        "settings differ: prompts: demo -> gsm8k",
        "settings differ: temperature: not given -> 0.7",
        "settings differ: max_new_tokens: 64 -> 128",
        "settings differ: model: tiny -> other",
    ]
    assert machines_differ(old.machine, new.machine) == ["threads: 2 -> 4"]
    change = only(changes(old, new))
    assert (change.verdict, change.target) == ("faster", "other")
    names = {figure.name for figure in change.figures}
    assert not names & {"tokens_per_second", "peak_memory_mb"}  # of another machine
    assert settings_differ(old, old) == machines_differ(old.machine, old.machine) == []


def test_several_targets_are_held_against_their_own() -> None:
    old = result(row("spec", 1, 1, 1), row("spec", 2, 2, 2, target="other"))
    new = result(row("spec", 2, 2, 2, target="other"), row("spec", 1, 1, 1))
    assert [(one.target, one.verdict) for one in changes(old, new)] == [
        ("tiny", "within noise"),
        ("other", "within noise"),
    ]


def test_what_cannot_be_seen_is_not_judged() -> None:
    """Of other programs tau is known, and what they do inside is not."""
    peer = row("hf", 1, 2, 3, overhead=None, time=None, nodes=None, identical=None)
    found = verdicts(peer, peer)
    assert found["speedup"] == found["tau"] == "within noise"
    assert found["overhead"] == found["identical"] == "not judged"
    blind = row("spec", 1, 2, 3, tau=None, efficiency=None, speedup=None)
    assert set(verdicts(blind, blind).values()) == {"not judged", "within noise"}
    assert only(changes(result(blind), result(blind))).verdict == "not judged"
    silent = row("spec", 0, 0, 0, tau=0.0, efficiency=0.0)  # nothing was said at all
    assert verdicts(silent, silent)["efficiency"] == "not judged"


def test_rankings_count_pairs_that_are_clear_in_both() -> None:
    old = result(plainly(), row("a", 2, 2.1, 2.2), row("b", 3, 3.1, 3.2), row("c", 3, 3.1, 3.3),
                 row("gone", 9, 9, 9), row("a", 9, 9, 9, "maths"))  # fmt: skip
    new = result(plainly(), row("a", 4, 4.1, 4.2), row("b", 3, 3.1, 3.2), row("c", 3, 3.9, 4.3))
    # none is slower than a, b and c in both; a and b change places; c overlaps both in the new one.
    assert rankings(old, new) == Rankings(alike=3, contrary=(("b", "a"),), close=2)
    assert rankings(old, old) == Rankings(alike=9, contrary=(), close=1)
    two = result(row("a", 1, 1, 1), row("b", 2, 2, 2, target="other"))
    assert rankings(two, two) == Rankings(alike=0, contrary=(), close=0)  # of no target


THREE = [
    result(plainly(overhead=one), row("spec", *bounds, tau=tau, overhead=one),
           row("hf", 1, 1, 1, overhead=None), settings={"rounds": 4 - place}, peers=["hf"])
    for place, (bounds, tau, one) in enumerate([
        ((1.8, 2.0, 2.2), 2.0, 0.02), ((1.7, 2.4, 2.5), 2.1, 0.03), ((1.9, 2.1, 2.3), 1.9, 0.01),
    ])
]  # fmt: skip


def test_a_baseline_has_medians_and_the_widest_bounds() -> None:
    made = baseline(THREE)
    text = made.json_text()
    assert json.loads(text)["schema"] == "nfox.bench.baseline/1"
    assert made.results == 3
    assert made.settings["rounds"] == 2  # the fewest
    assert made.machine == BaselineMachine(dtype="bfloat16", threads=2)
    assert [one.method for one in made.rows] == ["none", "spec"]  # none of other programs
    spec = made.rows[1]
    assert spec.speedup == Interval(2.1, low=1.7, high=2.5)
    assert spec.tau == Interval(2.0, low=1.9, high=2.1)
    assert spec.overhead == Interval(0.02, low=0.01, high=0.03)
    assert spec.efficiency is not None
    assert spec.efficiency.low == pytest.approx(1.7 / 2.1)  # each with its own tau
    assert spec.efficiency.high == pytest.approx(2.3 / 1.9)
    assert not any(word in text for word in ("tokens_per_second", "_ms", "_mb", "time", "x/tiny"))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (result(row("spec", 1, 2, 3), settings={"prompts": "gsm8k"}), "prompts: demo -> gsm8k"),
        (result(row("spec", 1, 2, 3), machine={"threads": 4}), "threads: 2 -> 4"),
        (result(row("lookup", 1, 2, 3)), "rows differ: lookup"),
        (result(row("spec", 1, 2, 3, prompts=7)), "rows differ: spec, all, 50 prompts"),
    ],
)
def test_a_baseline_is_of_results_that_are_alike(other: BenchResult, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        baseline([result(row("spec", 1, 2, 3)), other])


def worse(base: Baseline, new: BenchResult, **more: Any) -> list[tuple[str, str]]:
    return [(one.method, one.ratio) for one in guard(base, new, **more).checks if one.worse]


@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_a_guard_holds_for_what_its_baseline_was_made_of(margin: float) -> None:
    base = baseline(THREE)
    for one in THREE:
        found = guard(base, one, margin)
        assert not any(check.worse for check in found.checks)
        assert len(found.checks) == 2 * 4
        assert found.missing == found.notes == ()


def below(value: float) -> float:
    return nextafter(value, -inf)


BASE = baseline([result(plainly(), row("spec", 2.0, 2.2, 2.4))])
MOST = 1 - (1 - 0.02) / 1.05


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (row("spec", 1.0, 1.88, 1.9), []),  # 2.0 less 5 %
        (row("spec", 1.0, 1.88, below(1.9)), ["speedup", "efficiency"]),
        (row("spec", 1.0, 2.2 * 0.85, 2.3), []),  # of all tasks, 15 % at most
        (row("spec", 1.0, below(2.2 * 0.85), 2.3), ["speedup"]),
        (row("spec", 2.0, 2.2, 2.4, tau=2.0 * 2.4 / 1.91), []),  # its efficiency is up to 0.955
        (row("spec", 2.0, 2.2, 2.4, tau=2.0 * 2.4 / 1.89), ["efficiency"]),
        (row("spec", 2.0, 2.2, 2.4, tau=1.931), []),
        (row("spec", 2.0, 2.2, 2.4, tau=1.929), ["tau"]),
        (row("spec", 2.0, 2.2, 2.4, overhead=MOST), []),
        (row("spec", 2.0, 2.2, 2.4, overhead=MOST + 1e-9), ["overhead"]),
        (row("spec", 2.0, 2.2, 2.4, overhead=None), ["overhead"]),
        (row("spec", 4.0, 4.2, 4.4, overhead=0.0), []),  # better is no fault
    ],
)
def test_a_guard_cries_at_each_ratio_beyond_its_margin(new: Row, said: list[str]) -> None:
    assert worse(BASE, result(plainly(), new)) == [("spec", ratio) for ratio in said]


def test_a_slower_plain_loop_is_found_though_speedups_rise() -> None:
    new = result(plainly(overhead=0.3), row("spec", 2.8, 3.0, 3.2))
    assert worse(BASE, new) == [("none", "overhead")]


def test_the_margin_is_of_times_and_not_of_tau() -> None:
    base = baseline([result(plainly(), row("spec", 2.0, 2.2, 2.4, "maths"))])
    slower = result(plainly(), row("spec", 1.5, 1.6, 1.7, "maths"))
    assert worse(base, slower, margin=0.14) == [("spec", "speedup"), ("spec", "efficiency")]
    assert worse(base, slower, margin=0.16) == []
    assert worse(BASE, result(plainly(), row("spec", 2, 2.2, 2.4, tau=1.8)), margin=0.5) == [
        ("spec", "tau")
    ]


def test_a_guard_misses_methods_and_names_new_ones() -> None:
    new = result(plainly(), row("lookup", 1, 2, 3), missing={"spec": "no draft model"})
    found = guard(BASE, new)
    assert found.missing == ("spec (no draft model)",)
    assert found.notes == ("not in the baseline: lookup",)
    several = baseline([result(row("spec", 1, 2, 3), row("spec", 1, 2, 3, "maths"))])
    assert guard(several, result(row("spec", 1, 2, 3))).missing == ("spec, maths",)


def test_on_another_machine_a_guard_judges_what_does_not_hang_on_it() -> None:
    bad = (plainly(), row("spec", 0.5, 0.6, 0.7, tau=1.0, overhead=0.5))
    found = guard(BASE, result(*bad, machine={"threads": 4, "device": "other"}))
    assert {check.ratio for check in found.checks} == {"tau"}
    assert found.notes == (
        "not the baseline's machine (threads: 2 -> 4): speedup, efficiency, overhead not judged",
    )
    found = guard(BASE, result(bad[0], machine={"dtype": "float32"}))
    assert (found.checks, found.missing) == ((), ("spec",))
    assert len(guard(BASE, result(*bad, machine={"device": "other"})).checks) == 8


def test_other_settings_guard_nothing() -> None:
    with pytest.raises(UsageError, match="prompts: demo -> gsm8k"):
        guard(BASE, result(plainly(), settings={"prompts": "gsm8k"}))


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command; results are written to files first."""

    def called(*words: object) -> Result:
        given = []
        for place, word in enumerate(words):
            if isinstance(word, File | dict):
                text = word.json_text() if isinstance(word, File) else json.dumps(word)
                (file := tmp_path / f"{place}.json").write_text(text)
                word = file
            given.append(str(word))
        return CliRunner().invoke(app, ["bench", *given])

    return called


def test_compare_shows_and_writes_what_changed(run: Run, tmp_path: Path) -> None:
    old = result(plainly(), row("spec", 2.0, 2.1, 2.2), row("ctc", 1.1, 1.2, 1.3, tau=2.5))
    new = result(plainly(), row("spec", 1.1, 1.2, 1.3), row("ctc", 2.0, 2.1, 2.2),
                 row("lookup", 1, 2, 3), machine={"threads": 4})  # fmt: skip
    out = tmp_path / "out.json"
    done = run("compare", old, new, "--json", out)
    assert done.exit_code == 0, done.output
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "none 1.00 -> 1.00 within noise" in lines
    assert "spec 2.10 (2.00-2.20) -> 1.20 (1.10-1.30) slower, efficiency lower" in lines
    assert "ctc 1.20 (1.10-1.30) -> 2.10 (2.00-2.20) faster, efficiency higher, tau lower" in lines
    assert "machines differ: threads: 2 -> 4; tok/s and MB are not compared" in lines
    assert "only in the new result: lookup" in lines
    assert "ranked contrarily: spec was faster than ctc, and is slower" in lines
    assert lines[-1] == (
        "2 of 3 changed beyond noise; 1 pair of methods is ranked contrarily "
        "(2 alike, 0 too close to tell)"
    )
    said = json.loads(out.read_text())
    assert said["schema"] == "nfox.bench.compare/1"
    assert [one["verdict"] for one in said["changes"]] == [
        "within noise", "slower", "faster", "only new",
    ]  # fmt: skip
    assert said["rankings"]["contrary"] == [["spec", "ctc"]]


def test_categories_stand_in_the_table_where_there_are_several(run: Run) -> None:
    one = result(row("spec", 1, 2, 3), row("spec", 1, 2, 3, "maths", prompts=1))
    done = run("compare", one, one)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "spec maths 2.00 (1.00-3.00) -> 2.00 (1.00-3.00) not judged" in lines
    assert lines[-1].startswith("0 of 2 changed beyond noise (1 not judged")


def test_a_baseline_is_made_and_guards(run: Run, tmp_path: Path) -> None:
    base = tmp_path / "base.json"
    done = run("baseline", *THREE, "--out", base)
    assert (done.exit_code, done.stdout) == (0, f"2 rows of 3 results are in {base}\n")
    for one in THREE:
        done = run("compare", base, one, "--guard")
        assert done.exit_code == 0, done.output
        assert done.stdout.splitlines()[-1] == "none of 8 ratios is worse than noise allows"
    bad = result(plainly(overhead=0.3), row("spec", 1.2, 1.3, 1.4, "all", tau=1.5))
    done = run("compare", base, bad, "--guard", "--json", tmp_path / "out.json")
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        "nfox: error: none: overhead is 30.0%, was 2.0% (1.0%-3.0%); noise allows at most 7.6%",
        "nfox: error: spec: speed-up is 1.30 (1.20-1.40), was 2.10 (1.70-2.50); "
        "noise allows at least 1.78",
        "nfox: error: spec: tau is 1.50, was 2.00 (1.90-2.10); noise allows at least 1.83",
        "nfox: error: 3 of 8 ratios are worse than noise allows, 0 rows are missing",
        "hint: if that is meant, make a new baseline: nfox bench baseline RESULT RESULT --out FILE",
    ]
    said = json.loads((tmp_path / "out.json").read_text())
    assert [one["ratio"] for one in said["checks"] if one["worse"]] == [
        "overhead",
        "speedup",
        "tau",
    ]
    assert run("compare", base, bad, "--guard", "--margin", 0.5).exit_code == 1  # tau


def test_a_guard_says_what_is_missing_and_takes_a_result_as_baseline(run: Run) -> None:
    old = result(plainly(), row("spec", 1, 2, 3))
    done = run("compare", old, result(plainly(), row("lookup", 1, 2, 3)), "--guard")
    assert done.exit_code == 1
    assert "nfox: not in the baseline: lookup" in done.stderr
    assert "error: spec: in the baseline, missing in the result" in done.stderr
    assert run("compare", old, old, "--guard").exit_code == 0


WRONG = content(THREE[0]) | {"rows": [{"target": "x"}]}
NAN = content(THREE[0])
NAN["rows"][0]["prompts"] = float("nan")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["compare", BASE, THREE[0]], 2, "is a baseline"),
        (["compare", THREE[0], BASE, "--guard"], 2, "its schema is nfox.bench.baseline/1"),
        (["compare", THREE[0], {"schema": "x/1"}], 2, "its schema is x/1"),
        (
            ["compare", THREE[0], content(THREE[1]) | {"rows": []}],
            2,
            "rows: List should have at least 1",
        ),
        (["compare", THREE[0], "nothing.json"], 2, "nothing.json: No such file"),
        (["compare", THREE[0], __file__], 2, "not JSON"),
        (["compare", THREE[0], WRONG], 2, "rows.0.method: Field required"),
        (["compare", THREE[0], NAN], 2, "rows.0.prompts"),
        (["compare", THREE[0], THREE[0], "--margin", 0.1], 2, "--margin is of --guard"),
        (["compare", THREE[0], THREE[0], "--json", "/nowhere/x.json"], 2, "there is no folder"),
        (["compare", content(BASE) | {"rows": [{}]}, THREE[0], "--guard"], 2, "rows.0.target"),
        (["baseline", THREE[0], "--out", "/nowhere/x.json"], 2, "there is no folder"),
        (["baseline", THREE[0], WRONG, "--out", "x.json"], 2, "Field required"),
    ],
)
def test_mistakes_are_one_line(run: Run, words: list[Any], code: int, said: str) -> None:
    done = run(*words)
    assert done.exit_code == code, done.output
    assert said in done.stderr
    assert done.stderr.startswith("nfox: error: ")
    assert not Path("x.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare"], "OLD is missing\nhint: "),
        (["compare", "old.json"], "NEW is missing\nhint: "),
        (["baseline", "--out", "x.json"], "RESULT is missing\nhint: "),
        (["baseline", "x.json"], "--out is missing\nhint: "),
    ],
)
def test_what_is_needed_is_asked_for(run: Run, words: list[Any], said: str) -> None:
    done = run(*words)
    assert done.exit_code == 2, done.output
    assert said in done.stderr


def test_a_full_disk_is_one_line(run: Run, tmp_path: Path) -> None:
    run("compare", *THREE[:2])  # the files are there
    files = [tmp_path / "1.json", tmp_path / "2.json"]
    with full_disk.room(10):
        done = run("baseline", *files, "--out", tmp_path / "base.json")
    assert done.exit_code == 1
    assert "was not written" in done.stderr


def test_a_check_knows_what_it_allows() -> None:
    (check,) = [c for c in guard(BASE, THREE[0]).checks if (c.method, c.ratio) == ("spec", "tau")]
    assert isinstance(check, Check)
    assert check.limit == pytest.approx(2.0 * (1 - 0.03 - 0.25 / 50))
