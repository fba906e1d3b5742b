"""Where the time goes inside of a reply: traces of torch's profiler."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from nfox.eval.bench.runner import Bench

_TOKENS = 32  # a trace of more is too large to look at


def write(bench: Bench, folder: Path) -> list[Path]:
    """Write a trace of the beginning of the first conversation with every entrant.

    For chrome://tracing or Perfetto. Profiling slows everything down: nothing of it is counted.

    Args:
        bench: that has held its conversations.
        folder: for the files.

    Returns:
        The files.
    """
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    written = []
    settings = bench.settings
    bench.settings = replace(settings, max_new_tokens=min(_TOKENS, settings.max_new_tokens))
    for entrant in bench.entrants:
        with _hushed(), profile(activities=activities, with_stack=True) as found:
            bench.hold(entrant, 0, -1)
        file = folder / f"{entrant.file_name}.json"
        found.export_chrome_trace(str(file))
        written.append(file)
    bench.settings = settings
    return written


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep what the profiler's library writes to stderr off the terminal."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
