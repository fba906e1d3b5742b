"""A batch that is computed to see what it takes, and leaves no trace."""

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

from nfox.train.learner import Learner

_SHORT = 10.0
"""Seconds; what takes less is done again, since the first time also warms up."""


def rehearse(learner: Learner, rows: Dataset[Any], batch: int) -> tuple[float, int]:
    """Compute the loss of a batch and its gradients, and forget both.

    Weights, random numbers and gradients are afterwards what they were.

    Args:
        learner: that will be trained.
        rows: to learn from; those taken lie as far apart as they can.
        batch: rows at a time.

    Returns:
        Seconds, and the most bytes that were held so far; 0 if they cannot be told.
    """
    count = len(rows)  # type: ignore[arg-type]
    taken = min(batch, count)
    made = learner.collate([rows[i * count // taken] for i in range(taken)])
    inputs = {name: value.to(learner.target.device) for name, value in made.items()}
    training = learner.training
    learner.train()
    try:
        with _undone(learner):
            seconds = _once(learner, inputs)
            if seconds < _SHORT:
                seconds = _once(learner, inputs)
    finally:
        learner.train(training)
    return seconds, _held(learner.target.output_device)


def _once(learner: Learner, inputs: dict[str, torch.Tensor]) -> float:
    """Return the seconds that a forward and a backward take."""
    device = learner.target.output_device
    began = time.perf_counter()
    loss, _ = learner(**inputs)
    loss.backward()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - began
    learner.zero_grad()
    return seconds


@contextmanager
def _undone(learner: Learner) -> Iterator[None]:
    """Give random numbers back, wherever they come from."""
    python, array = random.getstate(), numpy.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        numpy.random.set_state(array)


def _held(device: torch.device) -> int:
    """Return the most bytes that were held on a device so far; 0 if that cannot be told."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type != "cpu" or sys.platform == "win32":
        return 0
    usage = importlib.import_module("resource")  # not on Windows
    most = usage.getrusage(usage.RUSAGE_SELF).ru_maxrss
    return int(most) * (1 if sys.platform == "darwin" else 1024)
