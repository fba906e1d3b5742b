"""A dry run: one batch is computed to learn its time and memory, and leaves no trace."""

from __future__ import annotations

import importlib
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from torch.utils.data import Dataset

from nfox.train.learner import Batch, Learner

_LONG = 10.0
"""Seconds; a shorter computation is done twice, since the first time also warms up."""


def dry_run(learner: Learner, rows: Dataset[Any], batch: int) -> tuple[float, int]:
    """Compute the loss and the gradients of one batch, and discard both.

    Weights, gradients and the state of random number generators are afterwards what they were.

    Args:
        learner: the learner that will be trained.
        rows: the rows to learn from, of which evenly spaced ones are taken.
        batch: the number of rows in the batch.

    Returns:
        The seconds that a forward and a backward pass take, and the peak memory of the process so
        far in bytes, 0 where it is unknown.
    """
    row_count = len(rows)  # type: ignore[arg-type]
    size = min(batch, row_count)
    collated = learner.collate([rows[i * row_count // size] for i in range(size)])
    inputs = {name: value.to(learner.target.device) for name, value in collated.items()}
    training = learner.training
    learner.train()
    try:
        with _restored_random_state():
            seconds = _time_step(learner, inputs)
            if seconds < _LONG:
                seconds = _time_step(learner, inputs)
    finally:
        learner.train(training)
    return seconds, _peak_memory(learner.target.output_device)


def _time_step(learner: Learner, inputs: Batch) -> float:
    """Return the seconds that a forward and a backward pass take, and discard the gradients."""
    device = learner.target.output_device
    start = time.perf_counter()
    loss, _ = learner(**inputs)
    loss.backward()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - start
    learner.zero_grad()
    return seconds


@contextmanager
def _restored_random_state() -> Iterator[None]:
    """Restore the random number generators of Python, numpy and torch at the end of the block."""
    python_state, numpy_state = random.getstate(), numpy.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python_state)
        numpy.random.set_state(numpy_state)


def _peak_memory(device: torch.device) -> int:
    """Return the peak memory of a device or of this process in bytes, 0 where it is unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type != "cpu" or sys.platform == "win32":
        return 0
    resource = importlib.import_module("resource")  # not on Windows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) * (1 if sys.platform == "darwin" else 1024)
