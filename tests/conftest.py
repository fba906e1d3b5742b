"""Settings of the whole suite: one thread per process, no network."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

import programs
import pytest


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Leave the other cores to the other processes."""
    import torch  # here, because the process that only hands out the tests does without it

    torch.set_num_threads(1)


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
