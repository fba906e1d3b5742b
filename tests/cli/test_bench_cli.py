"""`nfox bench`: what it writes, what it says of mistakes, and how it goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folder
import pytest
from full_disk import room
from typer.testing import CliRunner, Result

from nfox.cli.app import app
from nfox.drafters import method_names, plain_method
from nfox.eval.bench.figures import EXPLAIN, PEERS
from nfox.eval.bench.journal import trials_file
from nfox.eval.bench.trials import Bench, Trial

PLAIN = plain_method()
PUBLISHED = Path(__file__).parent.parent.parent / "docs" / "benchmark" / "embedded.json"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


QUICK = ("--model", folder.llama(), "--dtype", "float32", "--limit", 2, "--rounds", 1,
         "--max-new-tokens", 8, "--warmup", 0)  # fmt: skip


def test_the_command_writes_what_is_documented(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    done = run(*QUICK, "--methods", "lookup,jacobi:window=2", "--peers", "hf", "--json", out,
               "--simulate-acceptance", 0.5, "--replay", "2")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    said = json.loads(out.read_text())
    published = json.loads(PUBLISHED.read_text())
    assert list(said) == list(published)
    assert list(said["rows"][0]) == list(published["rows"][0])
    assert list(said["machine"]) == list(published["machine"])
    assert said["schema"] == "nfox.bench/1"
    assert {"device", "dtype", "versions", "command", "commit", "threads"} <= said["machine"].keys()
    assert said["settings"]["max_new_tokens"] == 8
    entrants = [
        PLAIN,
        "lookup",
        "jacobi:window=2",
        "acceptance 0.5, gamma 4",
        "replay, gamma 2",
        "hf",
    ]
    assert list(said["entrants"]) == entrants
    kinds = [entrant["kind"] for entrant in said["entrants"].values()]
    assert kinds == ["method"] * 3 + ["simulated", "simulated", "peer"]
    assert [row["method"] for row in said["rows"]][:6] == entrants
    for row in said["rows"]:
        assert set(EXPLAIN) <= row.keys()
        assert row["identical"] == 1
        assert row["speedup_low"] <= row["speedup"] <= row["speedup_high"]
    assert said["divergences"] == []
    assert said["missing"] == {}
    assert not trials_file(out).exists()
    for row in said["rows"][:6]:
        assert f"{row['tau']:.2f}" in done.stdout
    assert "generate of transformers" in done.stdout


def test_all_are_the_methods_that_are_ready() -> None:
    done = run(*QUICK)
    assert done.exit_code == 0, done.stderr
    said = [line.split()[0] for line in done.stdout.splitlines() if line.strip()]
    ready = [name for name in method_names() if name in said]
    assert set(ready) == {PLAIN, "auto", "jacobi", "lookup"}


def test_who_lacks_something_has_a_row_that_says_so(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    done = run(*QUICK, "--methods", "medusa,lookup", "--json", out)
    assert done.exit_code == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("medusa"))
    assert "needs trained heads" in row
    said = json.loads(out.read_text())
    assert list(said["entrants"]) == [PLAIN, "lookup"]
    assert "needs trained heads" in said["missing"]["medusa"]


def test_a_sweep_is_a_row_or_a_category_for_each_value(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    done = run(*QUICK, "--methods", "jacobi", "--sweep", "window=1,2", "--sweep", "temperature=0,1",
               "--json", out)  # fmt: skip
    assert done.exit_code == 0, done.stderr
    rows = json.loads(out.read_text())["rows"]
    methods = {row["method"] for row in rows}
    assert methods == {PLAIN, "jacobi:window=1", "jacobi:window=2"}
    assert {row["category"] for row in rows} == {"all", "temperature 0", "temperature 1"}
    assert {row["identical"] for row in rows} == {1}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "warp"], "unknown method 'warp'"),
        (["--methods", "lookup:colour=1"], "no option 'colour'"),
        (["--peers", "vllm"], "no peer 'vllm'"),
        (["--sweep", "warp=1"], "no method that is compared"),
        (["--simulate-acceptance", "1.5"], "an acceptance is 0 to 1"),
        (["--simulate-acceptance", "much"], "--simulate-acceptance"),
        (["--replay", "none"], "--replay: 'none' is no number of tokens"),
        (["--simulate-gamma", "2"], "is of --simulate-acceptance"),
        (["--accept", "rejection"], "the same as exact at temperature 0"),
        (["--sweep", "context=64", "--sweep", "temperature=1"], "exclude each other"),
        (["--sweep", "temperature=0", "--sweep", "temperature=1"], "nothing is swept twice"),
        (["--sweep", "context=4", "--max-new-tokens", "8"], "all prompts are longer"),
        (["--json", "/nowhere/at/all.json"], "no folder"),
        (["--html", "/proc/nowhere/all.html"], "no folder"),
        (["--plots", "/proc/nowhere/all"], "/proc/nowhere"),
        (["--answers", "/proc/nowhere/all"], "/proc/nowhere"),
        (["--profile", "/proc/nowhere/all"], "/proc/nowhere"),
        (["--prompts", "nothing.jsonl"], "nothing.jsonl"),
        (["--prompts", "mtbench"], "no set of that name"),
        (["compare", "a", "b"], "--limit stands before compare"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_run(words: list[str], said: str) -> None:
    done = run("--model", folder.llama(), "--offline", "--limit", 1, *words)
    assert done.exit_code in (2, 3), done.output
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Press Ctrl-C in the fifth conversation."""
    run_trial, begun = Bench.run_trial, 0

    def stopping(self: Bench, *arguments: Any) -> Trial:
        nonlocal begun
        begun += 1
        if begun == 5:
            raise KeyboardInterrupt
        return run_trial(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Bench, "run_trial", stopping)
        yield patched


@pytest.mark.slow
def test_an_interrupted_run_shows_what_there_is_and_goes_on(
    tmp_path: Path, interrupted: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "result.json"
    command = (*QUICK, "--methods", "lookup,jacobi", "--json", out)
    done = run(*command)
    assert done.exit_code == 130
    assert "interrupted after 4 conversations; the same command goes on" in done.stderr
    assert "1 prompt;" in done.stdout  # the second was not held by all
    assert not out.exists()
    interrupted.undo()
    kept = trials_file(out)
    kept.write_text(kept.read_text() + '{"torn')
    other = run(*command, "--max-new-tokens", 9)
    assert other.exit_code == 2
    assert "other max_new_tokens" in other.stderr
    again = run(*command)
    assert again.exit_code == 0, again.stderr
    assert "going on after 3 conversations" in again.stderr
    said = json.loads(out.read_text())
    assert {row["prompts"] for row in said["rows"] if row["category"] == "all"} == {2}
    assert {row["identical"] for row in said["rows"]} == {1}
    assert not kept.exists()


def test_an_interrupted_run_that_keeps_nothing_says_so(interrupted: pytest.MonkeyPatch) -> None:
    done = run(*QUICK, "--methods", "lookup,jacobi")
    assert done.exit_code == 130
    assert "with --json it could be gone on with" in done.stderr


def test_a_result_is_kept_though_nobody_reads_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(result: Any) -> None:
        raise RuntimeError("as a closed pipe does")

    monkeypatch.setattr("nfox.cli.bench.outputs.print_table", broken)
    out = tmp_path / "result.json"
    done = run(*QUICK, "--methods", "none", "--json", out)
    assert done.exit_code == 1
    assert json.loads(out.read_text())["rows"]


def test_nothing_to_compare_with_is_an_error() -> None:
    done = run(*QUICK, "--methods", "medusa")
    assert done.exit_code == 3
    assert "nothing to compare with none: medusa: " in done.stderr


def test_trials_that_cannot_be_read_are_not_lost(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    trials_file(out).write_text("something else")
    done = run(*QUICK, "--methods", "lookup", "--json", out)
    assert done.exit_code == 2
    assert "not the trials of a benchmark" in done.stderr
    assert trials_file(out).read_text() == "something else"


def test_a_full_disk_is_one_line_and_what_was_written_is_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    command = (*QUICK, "--methods", "lookup", "--json", out)
    with room(3200):
        done = run(*command)
    assert done.exit_code == 1
    assert "the disk is full; the trials before are whole" in done.stderr
    again = run(*command)
    assert again.exit_code == 0, again.stderr
    assert "going on after" in again.stderr
    assert json.loads(out.read_text())["rows"]


@pytest.mark.slow
def test_a_profile_is_a_trace_for_each_method(tmp_path: Path) -> None:
    done = run(*QUICK, "--methods", "jacobi:window=2", "--profile", tmp_path / "traces")
    assert done.exit_code == 0, done.stderr
    traces = sorted(file.name for file in (tmp_path / "traces").iterdir())
    assert traces == ["jacobi-window=2.json", f"{PLAIN}.json"]
    for file in (tmp_path / "traces").iterdir():
        assert json.loads(file.read_text())["traceEvents"]


def test_every_figure_is_explained() -> None:
    done = run("--explain")
    assert done.exit_code == 0
    assert all(name in done.stdout and meaning in done.stdout for name, meaning in EXPLAIN.items())
    assert PEERS in done.stdout
