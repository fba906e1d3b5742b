"""Options that change nothing where they are typed are said, and what was typed decides."""

from __future__ import annotations

import json
from pathlib import Path

import folder
import pytest
import training
from typer.testing import CliRunner, Result

from nfox import drafters
from nfox.cli.app import app
from nfox.cli.serve import server
from nfox.cli.unused import reasons


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("heads")
    folder.write_heads(place, drafters.method_class("medusa"), base=str(folder.equipped()))
    return place


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200"})


def unused(done: Result) -> set[str]:
    """Return the options that were said to be without effect."""
    assert done.exit_code == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("nfox: not used: ")]
    return {name for line in lines for name in line.split(": ")[2].split(" (")[0].split(", ")}


_SHORT = ("--max-new-tokens", 2)
_BLOCK = ("--n", 4, "--max-new-seq-len", 8)
ASKED = ("-p", "the fox", "-M", 2)


@pytest.mark.parametrize(
    ("options", "method", "idle"),
    [
        ((), "auto", ""),  # what lies beside the model
        (("--heads", "HEADS"), "auto", ""),
        (("-o", "methods=medusa"), "auto", ""),
        (("--heads", "HEADS", "--tree", "mc_sim_7b_63"), "medusa", ""),
        (("--draft-model", "DRAFT"), "auto", ""),
        (("--heads", "HEADS", "--draft-model", "DRAFT"), "auto", ""),
        (
            ("--heads", "HEADS", "--draft-model", "DRAFT", "--method", "medusa"),
            "medusa",
            "--draft-model",
        ),
        (("--heads", "HEADS", "--method", "lookup"), "lookup", "--heads"),
        (("--draft-load-in-8bit", "--method", "none"), "none", "--draft-load-in-8bit"),
        (("--top-p", 0.9, "--seed", 1, "--top-k", 3), "auto", "--top-p --seed --top-k"),
        (("--top-p", 0.9, "--seed", 1, "-t", 0.7), "auto", ""),
        (("--accept", "rejection", "--lenience", 0.5), "auto", "--accept --lenience"),
        (("--revision", "main"), "auto", "--revision"),
        (("--max-context", 100_000), "auto", "--max-context"),
        (("--max-context", 64), "auto", ""),
        (("--gamma", 2, "-o", "gamma=2"), "spec", ""),
        (("--theme", "dark", "--multiline"), "auto", "--theme --multiline"),
        (("--compare", "--no-history"), "auto", "--compare --no-history"),
    ],
)
def test_what_was_typed_decides_or_is_said(
    options: tuple[object, ...], method: str, idle: str, heads: Path
) -> None:
    put = {"HEADS": heads, "DRAFT": folder.llama(layers=1, seed=1)}
    words = (put.get(word, word) for word in options)
    done = run("--model", folder.equipped(), "--json", *ASKED, *words)
    assert unused(done) == set(idle.split())
    assert json.loads(done.stdout.splitlines()[0])["method"] == method


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--gamma", 2, "-o", "gamma=3"), "--gamma 2 and -o gamma=3"),
        (("--model", ""), "--model is empty"),
        (("--draft-model", ""), "--draft-model is empty"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: tuple[object, ...], said: str) -> None:
    done = run("--model", folder.equipped(), *options, *ASKED)
    assert done.exit_code == 2
    assert said in done.stderr


def test_the_environment_is_not_the_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NFOX_SEED", "3")
    assert unused(run("--model", folder.llama(), *ASKED)) == set()


@pytest.mark.parametrize(
    ("typed", "gamma"),
    [(("-o", "gamma=2"), 2), (("-o", "ngram=1"), 4), (("--gamma", 3), 3), ((), 4)],
)
def test_what_is_typed_wins_over_the_environment(
    typed: tuple[object, ...], gamma: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NFOX_GAMMA", "4")
    done = run("--model", folder.llama(), "--json", *ASKED, "--method", "lookup", *typed)
    assert f"up to {gamma} tokens" in json.loads(done.stdout.splitlines()[0])["drafter"]


def test_nothing_is_said_where_quiet_was_asked_for() -> None:
    assert run("--model", folder.llama(), *ASKED, "--seed", 1, "-q").stderr == ""


@pytest.mark.parametrize(
    ("command", "options", "idle"),
    [
        ("generate hello", ("--max-new-tokens", 2, "--top-k", 3), "--top-k"),
        ("eval loss", ("--data", "DATA", "--limit", 1, "--heads", "HEADS"), "--heads"),
        (
            "eval jacobi",
            ("--data", "DATA", "--limit", 1, "--draft-model", "DRAFT"),
            "--draft-model",
        ),
        ("eval heads", ("--data", "DATA", "--limit", 1, "--accept", "typical"), "--accept"),
        (
            "data trajectories",
            ("--data", "DATA", "--data-size", 1, "--out", "OUT", "--draft-load-in-4bit", *_BLOCK),
            "--draft-load-in-4bit",
        ),
        (
            "data distill",
            ("--data", "DATA", "--limit", 1, "--out", "OUT", "--concurrency", 3, *_SHORT),
            "--concurrency",
        ),
        (
            "bench",
            ("--methods", "lookup", "--limit", 1, "--heads", "HEADS", "--seed", 1, *_SHORT),
            "--heads --seed",
        ),
    ],
)
def test_every_command_says_it(
    command: str, options: tuple[object, ...], idle: str, heads: Path, tmp_path: Path
) -> None:
    draft, out = folder.llama(layers=1, seed=1), tmp_path / "out.jsonl"
    put = {"HEADS": heads, "DRAFT": draft, "DATA": training.data(), "OUT": out}
    words = (put.get(word, word) for word in options)
    done = run(*command.split(), "--model", folder.equipped(), *words)
    assert unused(done) == set(idle.split())


@pytest.mark.parametrize(
    "command",
    [
        ("generate", "hello", "and you?", *_SHORT),
        ("generate", "hello", "--out", "OUT", *_SHORT),
        ("-p", "hello", "--json", *_SHORT),
        ("--style", "programmatic"),
        ("eval", "gsm8k", "--data", "PROBLEMS", *_SHORT),
        ("bench", "--methods", "lookup:gamma=0,jacobi:window=2", "--limit", 1, *_SHORT),
        ("serve", "--port", 0),
        ("worker", "--port", 0),
    ],
)
def test_every_command_that_decodes_says_that_its_method_guesses_nothing(
    command: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = tmp_path / "problems.jsonl"
    problems.write_text(json.dumps({"question": "What is 1 + 1?", "answer": "#### 2"}))
    put = {"OUT": tmp_path / "out.jsonl", "PROBLEMS": problems}
    method = () if command[0] == "bench" else ("--method", "lookup", "-o", "gamma=0")
    monkeypatch.setattr(server, "serve_app", lambda app, served, *_: served.worker.stop())
    done = run(*(put.get(word, word) for word in command), *method, "--model", folder.equipped())
    assert done.exit_code == 0, done.stderr
    told = "nfox: lookup guesses nothing: as asked for; method auto takes whichever pays"
    assert [line for line in done.stderr.splitlines() if "guesses nothing" in line] == [told]


@pytest.mark.parametrize(
    ("options", "idle"),
    [
        ((), set()),
        (("--host", "0.0.0.0"), {"--allow-host"}),
        (("--api-key", "key"), {"--allow-host"}),
    ],
)
def test_a_name_that_no_request_must_have_is_said_to_change_nothing(
    options: tuple[str, ...], idle: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "serve_app", lambda app, served, *_: served.worker.stop())
    model = ("--model", folder.equipped(), "--method", "none")
    done = run("serve", "--port", 0, *model, "--allow-host", "my.name", *options)
    assert unused(done) == idle


def test_one_reason_is_said_once() -> None:
    said = list(reasons({"a": "x", "b": "y", "-c": "x"}))
    assert said == ["not used: --a, -c (x)", "not used: --b (y)"]
