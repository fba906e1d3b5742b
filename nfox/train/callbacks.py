"""What happens beside the steps: an estimate before and after the first one, and a way to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback
from typing_extensions import override


class Stop(TrainerCallback):
    """Ends the training after the step in which somebody said so, with a checkpoint.

    Args:
        asked: says whether to stop.

    Attributes:
        agreed: makes all processes stop after the same step; set by whoever makes the trainer.
        stopped: whether it was done.
    """

    def __init__(self, asked: Callable[[], bool]) -> None:
        self.asked = asked
        self.agreed: Callable[[bool], bool] = bool
        self.stopped = False

    @override
    def on_step_end(self, args: Any, state: Any, control: Any, **_: object) -> None:
        if self.agreed(self.asked()) and state.global_step < state.max_steps:
            self.stopped = control.should_training_stop = control.should_save = True


class Epochs(TrainerCallback):
    """Tells rows that change from epoch to epoch which one it is.

    accelerate does so itself, but not where several processes share the rows.

    Args:
        rows: with a method `set_epoch`.
    """

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    @override
    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: object) -> None:
        self.rows.set_epoch(int((state.epoch or 0) + 1e-6))  # in the middle of one if resumed


class Estimate(TrainerCallback):
    """Says what the training will take: after a rehearsal, and again as soon as a step was timed.

    Args:
        tell: takes a line.

    Attributes:
        rehearse: computes a batch without a trace, returns the seconds and the most bytes of memory
            held, 0 if they cannot be told; set by whoever makes the trainer.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell
        self.rehearse: Callable[[], tuple[float, int]] | None = None
        self._times: list[float] = []

    @override
    def on_train_begin(self, args: Any, state: Any, control: Any, **_: object) -> None:
        """By now the training is what it will be."""
        left = state.max_steps - state.global_step
        if self.rehearse and left:
            seconds, memory = self.rehearse()
            seconds *= args.gradient_accumulation_steps
            held = f"; {memory / 1e9:.1f} GB of memory so far" if memory else ""
            time = f"about {_spell(seconds * left)} for {left} steps"
            self.tell(f"one batch was tried: {seconds:.2f} s a step, {time}{held}")

    @override
    def on_step_end(self, args: Any, state: Any, control: Any, **_: object) -> None:
        """The first step also warms up, so the second one is timed."""
        left = state.max_steps - state.global_step
        self._times.append(time.monotonic())
        if len(self._times) == 2 and left:
            seconds = self._times[1] - self._times[0]
            self.tell(f"{seconds:.2f} s a step, about {_spell(seconds * left)} for {left} more")


def _spell(seconds: float) -> str:
    """Write a time as a person says it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
