"""Trainer callbacks: a stop on request, the epoch for the rows, and an estimate of the time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback
from typing_extensions import override

from nfox.counting import counted


class StopOnRequest(TrainerCallback):
    """Ends the training after the step in which a stop was requested, with a checkpoint.

    Args:
        requested: returns whether this process has been asked to stop.

    Attributes:
        any_process: returns whether a flag is set in any process, so that all of them stop after
            the same step; whoever makes the trainer sets it.
        stopped: whether the training was ended.
    """

    def __init__(self, requested: Callable[[], bool]) -> None:
        self.requested = requested
        self.any_process: Callable[[bool], bool] = bool
        self.stopped = False

    @override
    def on_step_end(self, args: Any, state: Any, control: Any, **_: object) -> None:
        if self.any_process(self.requested()) and state.global_step < state.max_steps:
            self.stopped = control.should_training_stop = control.should_save = True


class SetEpoch(TrainerCallback):
    """Gives the number of the epoch to rows that differ from epoch to epoch.

    accelerate does so itself, but not where several processes share the rows.

    Args:
        rows: a dataset with a method `set_epoch`.
    """

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    @override
    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: object) -> None:
        self.rows.set_epoch(int((state.epoch or 0) + 1e-6))  # in the middle of one if resumed


class TimeEstimate(TrainerCallback):
    """Logs how long the training will take: after a dry run of one batch, and again as soon as a
    step was timed.

    Args:
        log: takes a line.

    Attributes:
        dry_run: computes one batch without a trace; returns the seconds it took and the peak
            memory in bytes, 0 where that is unknown; whoever makes the trainer sets it.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self.log = log
        self.dry_run: Callable[[], tuple[float, int]] | None = None
        self._step_ends: list[float] = []

    @override
    def on_train_begin(self, args: Any, state: Any, control: Any, **_: object) -> None:
        # Not earlier: only now are the batch size and the number of steps settled.
        steps = state.max_steps - state.global_step
        if self.dry_run and steps:
            seconds, memory = self.dry_run()
            seconds *= args.gradient_accumulation_steps
            peak = f"; {memory / 1e9:.1f} GB of memory so far" if memory else ""
            total = f"about {format_duration(seconds * steps)} for {counted(steps, 'step')}"
            self.log(f"one batch was tried: {seconds:.2f} s a step, {total}{peak}")

    @override
    def on_step_end(self, args: Any, state: Any, control: Any, **_: object) -> None:
        steps = state.max_steps - state.global_step
        self._step_ends.append(time.monotonic())
        if len(self._step_ends) == 2 and steps:  # the first step also warms up
            seconds = self._step_ends[1] - self._step_ends[0]
            total = f"about {format_duration(seconds * steps)} for {steps} more"
            self.log(f"{seconds:.2f} s a step, {total}")


def format_duration(seconds: float) -> str:
    """Return a duration with the unit that a person would choose."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
