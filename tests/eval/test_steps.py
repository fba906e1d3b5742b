"""The benchmark of a large model's steps, in small: what it writes, and what it asks for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import steps


def test_it_says_so_without_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["steps.py"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit) as caught:
        steps.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_every_row_has_shares_and_theory_and_says_what_is_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nfox.eval.bench.forwards._MOST_READ", {"cpu": 1 << 22})
    asked = ["--shape", "tiny", "--dtypes", "bfloat16", "--contexts", "16,32"]
    monkeypatch.setattr(sys, "argv", ["steps.py", *asked, "--steps", "3", "--tokens", "60"])
    steps.main()
    first, second = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    for row in (first, second):
        plain = row["plain"]
        assert plain.keys() == {"step", *steps.PARTS}
        assert plain["step"] > 0
        assert row["64 nodes beside one"] == pytest.approx(
            row["tree of 64"]["target"] / plain["target"], abs=0.01, rel=0.05
        )
        assert row["share of bandwidth"] > 0
    assert [rate["rate"] for rate in first["simulated"]] == list(steps.RATES)
    for rate in first["simulated"]:
        assert rate["tau"] == pytest.approx(rate["tau in theory"], rel=0.25)
    assert "simulated" not in second


def test_what_is_asked_for_is_said_where_it_is_missed() -> None:
    good = {"rate": 0.8, "tau": 3.0, "tau in theory": 3.1, "speedup": 2.5, "speedup in theory": 2.6}
    row = {"share of bandwidth": 0.8, "64 nodes beside one": 1.2, "simulated": [good]}
    assert steps.verdicts(row) == []
    row["share of bandwidth"], row["64 nodes beside one"] = 0.7, 1.3
    row["simulated"] = [good | {"speedup": 2.0}]
    assert steps.verdicts(row) == [
        "plain decoding at 70% of the bandwidth",
        "64 nodes cost 1.30 times one",
        "speedup at 0.8 misses theory by -23%",
    ]
