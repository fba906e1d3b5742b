"""Traces of torch's profiler: where the time goes inside of a reply."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from nfox.eval.bench.trials import Bench

_TOKENS = 32  # a trace of more is too large to look at


def write(bench: Bench, folder: Path) -> list[Path]:
    """Write a trace of the beginning of the first conversation with every entrant of this process.

    For chrome://tracing or Perfetto. Profiling slows everything down: nothing of it is counted.

    Args:
        bench: whose rounds are over.
        folder: for the files.

    Returns:
        The files.
    """
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    tokens = min(_TOKENS, bench.settings.max_new_tokens)
    settings = replace(bench.settings, max_new_tokens=tokens)
    files = []
    for entrant in (one for one in bench.entrants if one.kind != "peer"):
        with _without_stderr(), profile(activities=activities, with_stack=True) as trace:
            bench.run_trial(entrant, 0, settings=settings)
        file = folder / f"{entrant.file_name}.json"
        trace.export_chrome_trace(str(file))
        files.append(file)
    return files


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Keep what the profiler's library writes to stderr off the terminal."""
    stderr = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
