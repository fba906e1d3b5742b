"""`nfox data distill`: what may be gone on with, where it comes from, and whose GPUs are whose."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import folder
import pytest
from click.testing import Result
from full_disk import room
from typer.testing import CliRunner

from nfox.cli.app import app
from nfox.cli.processes import hide_other_gpus
from nfox.errors import UsageError
from nfox.train.data.api_answerer import ApiAnswerer

QUESTIONS = ("the fox", "quick brown fox", "lazy dog", "jumps")


def write(path: Path, questions: Sequence[str] = QUESTIONS) -> Path:
    path.write_text(json.dumps([[{"role": "user", "content": text}] for text in questions]))
    return path


def distill(data_file: Path, written: Path, **options: Any) -> Result:
    settings = {"model": folder.llama(), "max-new-tokens": 4, "data": data_file, "out": written}
    words = {name: value for name, value in (settings | options).items() if value is not None}
    named = [f"--{name}={value}" for name, value in words.items()]
    return CliRunner().invoke(app, ["data", "distill", *named])


def provenance(out: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((out.parent / f"{out.name}.provenance.json").read_text())
    return facts


def refused(done: Result, fault: str, code: int) -> None:
    assert done.exit_code == code, done.stderr
    errors = done.stderr[done.stderr.index("nfox: error") :]
    assert fault in errors
    assert len(errors.strip().splitlines()) <= 2


def test_human_turns_alone_are_answered(tmp_path: Path) -> None:
    data, out = write(tmp_path / "data.json"), tmp_path / "own.jsonl"
    done = distill(data, out)
    assert done.exit_code == 0, done.stderr
    assert provenance(out)["counts"] == {"before": 0, "kept": 4}
    assert distill(data, out, limit=2).exit_code == 0  # a part of it
    assert len(out.read_text().splitlines()) == 4


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"data": ("lazy dog", "jumps")}, "data "),
    ({"temperature": 0.5}, "temperature 0.0, not 0.5"),
    ({"max-new-tokens": 5}, "max_new_tokens 4, not 5"),
    ({"conv-template": "vicuna_v1.1"}, "template none, not vicuna_v1.1"),
    ({"system": "Be brief."}, "system none, not Be brief."),
    ({"model": None}, "not embedded"),
    ({"url": "http://127.0.0.1:9/v1"}, "url none, not http://127.0.0.1:9/v1"),
]


def test_a_file_is_gone_on_with_by_what_began_it_only(tmp_path: Path) -> None:
    data, out = write(tmp_path / "data.json"), tmp_path / "own.jsonl"
    assert distill(data, out, limit=2).exit_code == 0
    lines, facts = out.read_text(), provenance(out)
    for change, difference in CHANGES:
        other = write(tmp_path / "other.json", change["data"]) if "data" in change else data
        refused(distill(other, out, **change | {"data": other}), difference, 2)
        assert (out.read_text(), provenance(out)) == (lines, facts)
    assert distill(data.rename(tmp_path / "moved.json"), out).exit_code == 0
    assert out.read_text().startswith(lines)
    assert provenance(out)["counts"] == {"before": 2, "kept": 2}


def test_a_file_of_unknown_origin_is_not_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "own.jsonl"
    out.write_text('{"id": "0"}\n')
    refused(distill(write(tmp_path / "data.json"), out), "own.jsonl.provenance.json", 2)
    assert out.read_text() == '{"id": "0"}\n'


def test_replies_that_can_never_fit_are_refused_at_once(tmp_path: Path) -> None:
    out = tmp_path / "own.jsonl"
    done = distill(write(tmp_path / "data.json"), out, **{"max-new-tokens": 512})
    refused(done, "--max-new-tokens 512", 2)
    assert not out.exists()


def test_nothing_answered_is_an_error_with_its_reason(tmp_path: Path) -> None:
    out = tmp_path / "own.jsonl"
    done = distill(write(tmp_path / "data.json"), out, **{"max-new-tokens": 511})
    refused(done, "512 is the context", 1)
    assert provenance(out)["counts"]["failed"] == 4


def test_what_still_fails_in_a_second_run_costs_not_what_the_first_one_made(tmp_path: Path) -> None:
    data, out = write(tmp_path / "data.json", ("the fox", "the fox " * 99)), tmp_path / "own.jsonl"
    for kept in ({"before": 0, "kept": 1}, {"before": 1}):
        done = distill(data, out, **{"max-context": 64})
        assert done.exit_code == 0, done.stderr
        assert "and 4 new ones: 64 is the context" in done.stderr
        assert provenance(out)["counts"] == {"failed": 1} | kept
    assert len(out.read_text().splitlines()) == 1


def test_the_most_positions_bound_a_question_with_its_reply(tmp_path: Path) -> None:
    data, out = write(tmp_path / "data.json"), tmp_path / "own.jsonl"
    done = distill(data, out, **{"max-context": 16, "max-new-tokens": 16})
    refused(done, "--max-context is 16 tokens", 2)
    done = distill(data, out, **{"max-context": 512})
    assert done.exit_code == 0, done.stderr
    assert "not used: --max-context (the model has no more than 512 positions)" in done.stderr


def test_a_servers_model_is_its_own_and_its_key_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        ApiAnswerer, "answer", lambda self, conversations: ["HTTP 500"] * len(conversations)
    )
    monkeypatch.setattr("sys.argv", ["nfox", "data", "distill", "--api-key", "hush"])
    data, out, url = write(tmp_path / "data.json"), tmp_path / "own.jsonl", "http://me:hush@here/v1"
    done = distill(data, out, model=None, url=url, **{"api-key": "hush"})
    refused(done, "HTTP 500", 1)
    facts = provenance(out)
    assert (facts["model"], facts["url"]) == (None, "http://***@here/v1")
    assert "hush" not in json.dumps(facts)


def test_where_it_comes_from_is_known_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(self: ApiAnswerer, conversations: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(ApiAnswerer, "answer", stopped)
    out = tmp_path / "own.jsonl"
    assert distill(write(tmp_path / "data.json"), out, url="http://here/v1").exit_code == 130
    assert provenance(out)["url"] == "http://here/v1"


def test_the_counts_are_those_of_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = write(tmp_path / "data.json"), tmp_path / "own.jsonl"
    monkeypatch.setenv("WORLD_SIZE", "2")
    for run in range(2):
        for rank in range(2):
            monkeypatch.setenv("RANK", str(rank))
            assert distill(data, out).exit_code == 0
        counts = {"before": 4} if run else {"before": 0, "kept": 4}
        assert provenance(out)["counts"] == counts


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    data, out = write(tmp_path / "data.json"), tmp_path / "own.jsonl"
    assert distill(data, out, limit=2).exit_code == 0
    lines, facts = out.read_bytes(), provenance(out)
    for size in (len(lines) + 5, 5):
        with room(size):
            done = distill(data, out)
        refused(done, f"{out}: the disk is full", 1)
        assert out.read_bytes() == lines
        assert provenance(out)["questions"] == facts["questions"]
    assert distill(data, out).exit_code == 0
    assert len(out.read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("there", "visible", "local", "count", "own"),
    [
        (0, None, 1, 1, None),
        (0, "", 1, 1, ""),
        (4, None, 0, 1, "0"),
        (4, None, 3, 1, "3"),
        (4, None, 1, 2, "2,3"),
        (4, "3,1", 1, 1, "1"),
        (4, "GPU-a, GPU-b", 1, 1, "GPU-b"),
    ],
)
def test_each_process_has_gpus_of_its_own(
    there: int,
    visible: str | None,
    local: int,
    count: int,
    own: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(there, visible, monkeypatch)
    hide_other_gpus(local, count)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == own


@pytest.mark.parametrize(
    ("there", "visible", "local", "count"),
    [(0, None, 0, 2), (2, None, 2, 1), (3, None, 1, 2), (4, "3", 1, 1), (0, "0", 0, 1)],
)
def test_too_few_gpus_are_an_error_and_not_the_cpu(
    there: int, visible: str | None, local: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(there, visible, monkeypatch)
    with pytest.raises(UsageError, match=f"process {local} needs {count} GPUs"):
        hide_other_gpus(local, count)


def machine(there: int, visible: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have so many GPUs, of which the environment shows some; count them as torch does."""

    def count() -> int:
        shown = os.environ.get("CUDA_VISIBLE_DEVICES")
        return there if shown is None else min(there, len([x for x in shown.split(",") if x]))

    monkeypatch.setattr("torch.cuda.device_count", count)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
