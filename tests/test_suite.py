"""What a run of the suite leaves behind: nothing but what pytest itself keeps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_run_leaves_no_folder_behind(tmp_path: Path) -> None:
    makes_heads = "tests/heads/test_heads.py::test_guesses_come_with_how_sure_they_are"
    outside = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-n", "1", "-p", "no:cacheprovider", makes_heads]
    env = outside | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=_ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("pytest-of")] == []
