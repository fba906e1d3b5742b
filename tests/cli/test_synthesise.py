"""`nfox data synthesise`, and `nfox train` without data: from a model alone to what it learns."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import folder
import pytest
from click.testing import Result
from training import METHODS
from typer.testing import CliRunner

from nfox.cli.app import app
from nfox.heads.checkpoint import read_info
from nfox.train.cllm.collector import Collector

SMALL = {"max-new-tokens": 6, "question-tokens": 40, "count": 4}


def synthesise(out: Path, **options: Any) -> Result:
    settings = SMALL | {"model": folder.llama(layers=4), "out": out} | options
    words = [f"--{name}={value}" for name, value in settings.items()]
    return CliRunner().invoke(app, ["data", "synthesise", *words])


def train(method: str, out: Path, **options: Any) -> Result:
    settings = {
        "model": folder.llama(layers=4),
        "output_dir": out,
        "own_conversations": 4,
        "own_tokens": 6,
        "max_steps": 1,
        "use_cpu": True,
        "bf16": False,
    } | options
    words = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    return CliRunner().invoke(app, ["train", method, *words])


def forecast(done: Result) -> str:
    """Return the line on what to expect, which is said before anything is made."""
    before, _, after = done.stderr.partition("to expect: ")
    assert "conversations of the model" not in before
    return after.partition("conversations of the model")[0]


def refused(done: Result, fault: str, code: int) -> None:
    assert done.exit_code == code, done.stderr
    errors = done.stderr[done.stderr.index("nfox: error") :]
    assert fault in errors
    assert len(errors.strip().splitlines()) <= 2


def test_a_model_alone_gives_data_and_says_how_many(tmp_path: Path) -> None:
    out = tmp_path / "own.jsonl"
    done = synthesise(out)
    assert done.exit_code == 0, done.stderr
    assert "4 conversations of the model with itself: about" in done.stderr
    assert "4 kept" in done.stderr and "unended" in done.stderr
    facts = json.loads((tmp_path / "own.jsonl.provenance.json").read_text())
    assert facts["counts"]["kept"] == 4
    assert synthesise(out, count=6).exit_code == 0
    assert len(out.read_text().splitlines()) == 6
    refused(synthesise(out, temperature=0.5), "temperature 0.0, not 0.5", 2)


def test_the_most_positions_bound_a_question_with_its_answer(tmp_path: Path) -> None:
    out = tmp_path / "own.jsonl"
    refused(synthesise(out, **{"max-context": 8, "max-new-tokens": 8}), "--max-context is 8", 2)
    # What the random model asks by chance depends on every bit, which processors differ in.
    done = synthesise(out, **{"max-context": 24, "max-new-tokens": 20, "dtype": "float32"})
    refused(done, "and 20 new ones: 24 is the context", 1)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "fault", "code"),
    [
        ({"question-temperature": 0}, "temperature 0", 2),
        ({"script": "runish"}, "runish", 2),
        ({"max-new-tokens": 512}, "--max-new-tokens 512", 2),
        ({"beginnings": "/nowhere.txt"}, "/nowhere.txt: No such file or directory", 2),
        ({"beginnings": os.devnull}, "not a regular file", 2),
    ],
)
def test_what_cannot_work_is_refused_and_leaves_nothing(
    options: dict[str, Any], fault: str, code: int, tmp_path: Path
) -> None:
    refused(synthesise(tmp_path / "own.jsonl", **options), fault, code)
    assert not (tmp_path / "own.jsonl").exists()


def test_a_model_without_a_template_is_refused_in_a_line(tmp_path: Path) -> None:
    bare = folder.without_template(tmp_path / "bare")
    out = tmp_path / "own.jsonl"
    refused(synthesise(out, model=bare), "has no chat template", 3)
    refused(synthesise(out, **{"conv-template": "plain"}), "before a user's words", 3)
    refused(train(METHODS[0], tmp_path / "out", model=bare), "has no chat template", 3)
    assert not out.exists()


def test_questions_begin_with_the_lines_of_a_file(tmp_path: Path) -> None:
    beginnings = tmp_path / "beginnings.txt"
    beginnings.write_text("\nWhy is\n  Name a \n")
    done = synthesise(tmp_path / "own.jsonl", beginnings=beginnings)
    assert done.exit_code == 0, done.stderr
    refused(synthesise(tmp_path / "own.jsonl"), "was begun with beginnings ['Why is', 'Name a']", 2)
    done = train(METHODS[0], tmp_path / "out", own_beginnings=beginnings)
    assert done.exit_code == 0, done.stderr
    for folder_of in (tmp_path, tmp_path / "out"):
        for line in (folder_of / "own.jsonl").read_text().splitlines():
            question = json.loads(line)["messages"][0]["content"]
            assert question.startswith(("Why is", "Name a"))


@pytest.mark.parametrize("method", METHODS)
def test_heads_come_from_a_model_alone(method: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = train(method, out)
    assert done.exit_code == 0, done.stderr
    info = read_info(str(out))
    assert info is not None
    assert info.training["examples"] == 4
    before, _, after = done.stderr.partition("to expect: a tau of up to ")
    assert "conversations of the model" not in before  # it is said before anything is made
    assert 1.5 < float(after.split()[0]) < 5
    assert "at most 24 are learned from" in after
    words = ["generate", "hello", "--model", str(folder.llama(layers=4)), "--heads", str(out)]
    words += ["--dtype", "float32", "--method", method, "--max-new-tokens", "4"]
    answer = CliRunner().invoke(app, words)
    assert json.loads(answer.stdout)["spec"]["method"] == method


def test_a_draft_model_and_a_cllm_come_from_a_model_alone(tmp_path: Path) -> None:
    done = train("draft", tmp_path / "draft", layers=1, hidden=32)
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "draft" / "model.safetensors").is_file()
    assert "a tau of 3.3" in forecast(done) and "at most 4" in forecast(done)
    done = train("cllm", tmp_path / "cllm", adapter="lora")
    assert done.exit_code == 0, done.stderr
    assert "from 1.11 to 1.29" in forecast(done) and "at most 4 answers" in forecast(done)
    assert (tmp_path / "cllm" / "adapter" / "adapter_model.safetensors").is_file()
    assert "trajectories" in done.stderr


def test_a_cllm_without_any_trajectory_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Collector, "collect", lambda self, number, messages: ([], True))
    done = train("cllm", tmp_path / "cllm")
    refused(done, "no trajectory was collected: 4 repetitive", 1)
    assert "about 3 times as fast" in forecast(done)  # of one whose every weight learns


def test_called_again_it_learns_from_the_same_words_and_holds_some_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nfox.cli.train.own_data._HELD_OUT", 5)
    out = tmp_path / "out"
    assert train(METHODS[0], out).exit_code == 0
    own = (out / "own.jsonl").read_text()
    provenance = out / "own.jsonl.provenance.json"
    facts = json.loads(provenance.read_text())
    del facts["beginnings"]  # as earlier versions wrote it
    provenance.write_text(json.dumps({**facts, "dtype": "float32"}))
    done = train(METHODS[0], out, own_conversations=6)
    assert done.exit_code == 0, done.stderr
    assert "4 before" in done.stderr
    assert (out / "own.jsonl").read_text().startswith(own)
    info = read_info(str(out))
    assert info is not None
    assert info.training["examples"] == 5
    assert info.training["measured_on"].endswith("own-held-out.jsonl")
    refused(train(METHODS[0], out, own_tokens=7), "max_new_tokens 6, not 7", 2)


def test_what_is_saved_of_the_work_is_recorded_or_said_to_be_idle(tmp_path: Path) -> None:
    savings = {"vocabulary_sample": 16, "keep_states": True}
    done = train(METHODS[0], tmp_path / "out", **savings)
    assert done.exit_code == 0, done.stderr
    assert "hidden states take" in done.stderr
    info = read_info(str(tmp_path / "out"))
    assert info is not None
    assert {name: info.training[name] for name in savings} == savings
    refusal = train(METHODS[0], tmp_path / "other", vocabulary_sample=-1)
    refused(refusal, "--vocabulary_sample -1", 2)
