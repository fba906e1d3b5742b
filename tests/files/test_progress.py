"""How far a download and the loading of weights are: the right numbers, and nothing printed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import fake_hub
import folder
import programs
import pytest
from terminals import Tty
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from nfox import load
from nfox.cli.display.progress import loading_display
from nfox.files.progress import reporting
from nfox.models.loading import load_model
from nfox.models.options import LoadProgress, ModelOptions

ROOT = Path(__file__).parents[2]
LOAD = """
import json
from nfox.models.loading import ModelOptions, load_model
for name in ("single", "parts"):
    for offline in (False, False, True):
        reports = []
        options = ModelOptions(dtype="float32", offline=offline)
        load_model(f"someone/{name}", options, lambda *progress: reports.append(progress))
        print(json.dumps(reports))
"""


def sharded(copy: Path) -> Path:
    """Save a model in several files of weights."""
    shutil.copytree(folder.llama(), copy)
    (copy / "model.safetensors").unlink()
    model = AutoModelForCausalLM.from_pretrained(folder.llama())
    model.save_pretrained(copy, max_shard_size="60KB")
    assert len(list(copy.glob("model-*.safetensors"))) > 3
    return copy


def fetch(endpoint: str, home: Path) -> tuple[list[list[list[object]]], str]:
    """Load each model thrice in a new process: from the hub, again, and offline.

    Returns what was reported each time, and what was printed.
    """
    hub = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint, "HF_HOME": str(home)}
    shown = {"TQDM_POSITION": "-1"}  # the hub's own bars, as if stderr were a terminal
    environment = {**programs.ENVIRONMENT, **hub, **shown}
    command = [sys.executable, "-c", LOAD]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.mark.slow
def test_a_download_is_reported_byte_by_byte_to_its_end(tmp_path: Path) -> None:
    single, parts = folder.llama(), sharded(tmp_path / "source")
    with fake_hub.hub(single=single, parts=parts) as endpoint:
        loads, printed = fetch(endpoint, tmp_path / "home")
    assert (len(loads), printed) == (6, "")
    assert_reported(loads[:3], single)
    assert_reported(loads[3:], parts)


def assert_reported(loads: list[list[list[object]]], source: Path) -> None:
    """Check what was reported of a folder: of its download, of its weights, and nothing twice."""
    size = sum(file.stat().st_size for file in source.glob("*.safetensors"))
    units = [unit for unit, _, _ in loads[0]]
    assert units == sorted(units)  # all bytes are there before the first weight is read
    received = [row[1:] for row in loads[0] if row[0] == "bytes"]
    assert received == sorted(received)
    assert received[-1] == [size, size]
    weights = [row for row in loads[0] if row[0] == "weights"]
    assert weights == [["weights", n, len(weights)] for n in range(1, len(weights) + 1)]
    assert loads[1:] == [weights, weights]  # nothing comes twice


def test_weights_of_a_local_folder_are_counted_and_nothing_is_printed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    name, reports = str(folder.llama()), []
    capfd.readouterr()
    load_model(name, ModelOptions(), lambda *progress: reports.append(progress))
    assert reports == [("weights", n, len(reports)) for n in range(1, len(reports) + 1)]
    assert capfd.readouterr() == ("", "")


def test_files_that_come_at_once_are_added_up() -> None:
    reports: list[tuple[str, int, int]] = []
    with reporting(lambda *progress: reports.append(progress)) as bars:
        bar = bars(total=0, unit="B", name="huggingface_hub.snapshot_download")
        bar.total = 8000
        parts = [lambda: [bar.update(1) for _ in range(1000)] for _ in range(8)]
        threads = [threading.Thread(target=part) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with bars(total=3, desc="Fetching 3 files") as files:  # which are no bytes
            files.update(1)
        bars(total=9, unit="B", name="huggingface_hub.xet_get.transfer").update(9)
    assert reports == [("bytes", n, 8000) for n in range(1, 8001)]


def test_the_hook_goes_when_loading_ends_or_fails() -> None:
    def mine(factory: object, arguments: object, options: object) -> None: ...

    logging.set_tqdm_hook(mine)
    try:
        with pytest.raises(ZeroDivisionError), reporting(lambda *progress: None):
            raise ZeroDivisionError
        assert logging.set_tqdm_hook(None) is mine
    finally:
        logging.set_tqdm_hook(None)


def test_the_display_shows_what_is_done_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm-256color")
    screen = Tty()
    monkeypatch.setattr("sys.stderr", screen)
    steps = {
        "1.2 kB of 2.0 MB": ("bytes", 1200, 2_000_000),
        "3.4 kB": ("bytes", 3400, 0),
        "7 of 21 weights": ("weights", 7, 21),
    }
    with loading_display(True) as progress:
        progress.stage("loading [a/model]")
        for shown, step in steps.items():
            progress.amount(*step)
            wait_for(screen, shown)
        progress.amount("weights", 21, 21)  # and they are still put into the model
        shown_before = len(screen.getvalue())
        wait_for(screen, "loading [a/model]", after=shown_before)
        assert "21 weights" not in screen.getvalue().rpartition("loading [a/model]")[2]
        progress.stage("measuring")
        wait_for(screen, "measuring")
        assert "21 weights" not in screen.getvalue().rpartition("measuring")[2]
    assert "loading [a/model]" in screen.getvalue()
    progress.amount("weights", 1, 2)  # a draft model that is loaded in mid-conversation
    progress.stage("late")
    assert "late" not in screen.getvalue()


def wait_for(screen: Tty, text: str, after: int = 0) -> None:
    end = time.monotonic() + 30
    while text not in screen.getvalue()[after:]:
        assert time.monotonic() < end, screen.getvalue()
        time.sleep(0.02)


def test_nothing_is_shown_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Tty()
    monkeypatch.setattr("sys.stderr", screen)
    with loading_display(False) as progress:
        progress.stage("loading")
        progress.amount("bytes", 1, 2)
    assert screen.getvalue() == ""


def test_loading_tells_of_the_model_and_of_its_draft_model() -> None:
    reports: list[tuple[str, int, int]] = []
    stages: list[str] = []
    load(
        str(folder.llama()),
        draft_model=str(folder.llama(layers=1, seed=1)),
        loading=ModelOptions(dtype="float32"),
        progress=LoadProgress(stages.append, lambda *amount: reports.append(amount)),
    )
    ends = [total for what, done, total in reports if (what, done) == ("weights", total)]
    assert len(ends) == 2 and ends[0] > ends[1] > 0
    assert [stage for stage in stages if stage.startswith("loading")] == [
        f"loading {Path(folder.llama()).name}",
        f"loading {Path(folder.llama(layers=1, seed=1)).name}",
    ]
