"""Files that were changed, of every kind: the benchmark in small."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import mutations

pytestmark = pytest.mark.slow


def test_changed_files_are_refused_in_one_line_or_decode_to_the_plain_text(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peft, whose configs are changed too
        outcome = mutations.fuzz(tmp_path, 500, seed=1)
    assert outcome.wrong == []
    kinds = {*outcome.accepted, *outcome.refused}
    assert len(kinds) >= 20
    assert sum(outcome.accepted.values()) > 50
    assert sum(outcome.refused.values()) > 200
