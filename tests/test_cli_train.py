"""`nfox train` and `nfox eval heads`, run as a person runs them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import folder
import pytest
import test_train
from test_train import METHOD
from typer.testing import CliRunner, Result

from nfox import checkpoint
from nfox.cli.app import app

SMALL = {"max_steps": 2, "use_cpu": True, "bf16": False, "logging_steps": 1, "save_steps": 99}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def train(out: Path, *more: object, **changes: object) -> Result:
    given = {"model_name_or_path": folder.llama(), "data_path": test_train.data()}
    settings = {**given, "output_dir": out, f"{METHOD}_num_heads": 2, **SMALL, **changes}
    typed = [part for name, value in settings.items() for part in (f"--{name}", value)]
    return run("train", METHOD, *typed, *more)


def said(out: Path) -> Any:
    found = checkpoint.about(str(out))
    assert found is not None
    return found


def test_heads_are_trained_measured_and_written(tmp_path: Path) -> None:
    done = train(tmp_path / "out", eval_data_path=test_train.data())
    assert done.exit_code == 0, done.stderr
    assert "parameters" in done.stderr
    assert "tokens" in done.stderr
    assert re.search(r"step 2 of 2: loss \d", done.stderr)
    assert "top-1" in done.stdout
    assert "tau" in done.stdout
    assert f"--method {METHOD}" in done.stdout
    about = said(tmp_path / "out")
    assert about.training["learning_rate"] == 1e-3
    assert f"train {METHOD}" in about.training["command"]
    assert about.training["tokens"] > 0
    assert about.config["num_heads"] == 2
    answered = run("generate", "hello", "--model", folder.llama(), "--heads", tmp_path / "out",
                   "--max-new-tokens", 4, "--dtype", "float32", "--method", METHOD)  # fmt: skip
    assert json.loads(answered.stdout)["spec"]["method"] == METHOD


def test_the_names_of_published_commands_are_understood(tmp_path: Path) -> None:
    sizes = tmp_path / "heads.json"
    sizes.write_text('{"num_heads": 3, "num_layers": 1}')
    done = run(
        "train", METHOD, "--basepath", folder.llama(), "--tmpdir", test_train.data(),
        "--cpdir", tmp_path / "out", "--configpath", sizes, "--bs", 1, "--recover", "0",
        "--evaluation_strategy", "no", "--warmup-ratio=0.5", "--lazy_preprocess", "True",
        "--max_steps", 1, "--use_cpu", "--bf16", "False", "--model-max-length", 128,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    about = said(tmp_path / "out")
    assert (about.config["num_heads"], about.training["max_length"]) == (3, 128)


@pytest.mark.parametrize("kind", ["yaml", "json"])
def test_a_file_holds_the_same_names_and_typed_ones_win(kind: str, tmp_path: Path) -> None:
    config = tmp_path / f"config.{kind}"
    settings = {
        "model_name_or_path": str(folder.llama()),
        "data_path": str(test_train.data()),
        "output_dir": str(tmp_path / "out"),
        "lr_scheduler_kwargs": {},
        f"{METHOD}_num_heads": 2,
        "warmup_ratio": 0.1,
        "deepspeed": None,
        **SMALL,
        "max_steps": 3,
    }
    lines = [f"{name}: {json.dumps(value)}" for name, value in settings.items()]
    config.write_text(json.dumps(settings) if kind == "json" else "\n".join(lines))
    done = run("train", METHOD, config, "--max_steps", 1)
    assert done.exit_code == 0, done.stderr
    assert said(tmp_path / "out").training["steps"] == 1


NEEDED = ["--model_name_or_path", "x", "--data_path", "y"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["magic"], 2, "unknown method"),
        (["lookup"], 2, "no heads to train"),
        ([METHOD], 2, "--model_name_or_path is missing"),
        ([METHOD, *NEEDED], 2, "--output_dir is missing"),
        ([METHOD, "--learning_rte", "1"], 2, "did you mean --learning_rate"),
        ([METHOD, "--learning_rate", "much"], 2, "invalid float"),
        ([METHOD, "absent.yaml"], 2, "no such config file"),
        ([METHOD, f"--{METHOD}_feet", "1"], 2, "unknown setting"),
        ([METHOD, *NEEDED, "--output_dir", "o", "--eval_strategy", "steps"], 2, "eval_data_path"),
        ([METHOD, *NEEDED, "--output_dir", "o", "--resume_from_checkpoint", "true"], 2, "resume"),
        ([METHOD, *NEEDED[:1], "./absent", *NEEDED[2:], "--output_dir", "o"], 3, "no such folder"),
    ],
)
def test_mistakes_are_one_line_and_a_code(arguments: list[str], code: int, text: str) -> None:
    done = run("train", *arguments)
    assert done.exit_code == code, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


def test_help_says_what_there_is() -> None:
    assert "METHOD" in run("train").stdout
    assert "--model_name_or_path" in run("train", "--help").stdout
    whole = run("train", METHOD, "--help").stdout
    for name in ("--data_path", f"--{METHOD}_num_heads", "--gradient_accumulation_steps"):
        assert name in whole


def test_an_interrupt_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    settings = ["--model_name_or_path", folder.llama(), "--data_path", test_train.data()]
    more = ["--output_dir", tmp_path, "--max_steps", 100000, "--logging_steps", 1, "--use_cpu"]
    command = [sys.executable, "-m", "nfox.cli", "train", METHOD, *settings, *more]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if "step 2 of" in line)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "--resume_from_checkpoint true" in rest
    assert len(list(tmp_path.glob("checkpoint-*/trainer_state.json"))) == 1


@pytest.mark.parametrize("method", test_train.METHODS)
def test_heads_are_measured_and_the_best_tree_found(method: str, tmp_path: Path) -> None:
    job = test_train.job(method, own_labels=True)
    test_train.learn(tmp_path / "heads", job, max_steps=60, save_steps=99)
    given = ("--model", folder.llama(), "--method", method, "--dtype", "float32", "--limit", 5)
    place = ("--heads", tmp_path / "heads", "--data", test_train.data())
    done = run("eval", "heads", *given, *place, "--nodes", 7, "--out", tmp_path / "out.json")
    assert done.exit_code == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["conversations"] == 5
    assert len(found["tree"]) <= 7
    assert len(found["accuracy"]) == 2
    assert found["accuracy"][0][0] > 0.1
    assert "largest tree: 7 nodes" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [([], "--data is missing"), (["--data", "x.json", "--method", "none"], "no heads")],
)
def test_measuring_needs_data_and_heads(arguments: list[str], text: str) -> None:
    done = run("eval", "heads", "--model", folder.llama(), *arguments)
    assert done.exit_code == 2
    assert text in done.stderr
