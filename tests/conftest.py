"""Settings of the whole suite: one thread per process, no network, no folder left behind."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported
if _MAKES_FOLDER := "PYTEST_XDIST_WORKER" not in os.environ:  # which inherit it
    # For all that tests, and the programs they start, put into temporary folders: models are made
    # once per process, and torch's launcher leaves its own behind. `tmp_path` is kept as always.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    tempfile.tempdir = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="nfox-tests-")

# No model that somebody has fetched is found.
os.environ["XDG_DATA_HOME"] = f"{tempfile.gettempdir()}/no-data"
# Nor are anybody's own defaults.
os.environ["XDG_CONFIG_HOME"] = f"{tempfile.gettempdir()}/no-config"

import programs
import pytest

# A shell ignores Ctrl-C and Ctrl-\ for what it runs in the background, and so would whatever the
# tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Leave the other cores to the other processes."""
    import torch  # here, because the process that only hands out the tests does without it

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def commands_built_once() -> None:
    """Build the commands of the program once, however many tests run it."""
    from built_once import keep_commands  # here, for the same reason

    keep_commands()


@pytest.fixture(autouse=True)
def unsharded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back what a test asks for: libraries remember FSDP in the environment."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Take back what a process that is not the first of several does: it warns of nothing."""
    logger = logging.getLogger("nfox")
    level = logger.level
    yield
    logger.setLevel(level)


def pytest_collection_finish() -> None:
    """Leave the libraries out of collections of garbage: each training looks for some."""
    gc.freeze()


def pytest_sessionfinish() -> None:
    programs.stop()


def pytest_unconfigure() -> None:
    """Remove the folder of the run, once no process of xdist is there any more."""
    if _MAKES_FOLDER:
        shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)
