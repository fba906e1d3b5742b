"""Ctrl-C while heads are trained: the first one saves, a second one ends at once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from transformers import TrainerCallback
from typing_extensions import override


class Interrupt(TrainerCallback):
    """Takes Ctrl-C, and the SIGTERM of torchrun and of schedulers, from the first step on.

    Before it there is nothing to save, and Ctrl-C does what it does elsewhere.

    Args:
        tell: takes a line.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._pressed = False
        self._told = True
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def pressed(self) -> bool:
        """Whether the training is to end after its step."""
        if not self._told:
            self._tell_once()
        return self._pressed

    @override
    def on_train_begin(self, args: Any, state: Any, control: Any, **_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._press)

    @override
    def on_train_end(self, args: Any, state: Any, control: Any, **_: object) -> None:
        """What comes then begins from the last checkpoint, and is short."""
        self._restore()

    def _press(self, number: int, frame: FrameType | None) -> None:
        if self._pressed:
            raise KeyboardInterrupt
        self._pressed, self._told = True, False
        with suppress(RuntimeError):  # in the middle of another line: told when the step has ended
            self._tell_once()

    def _tell_once(self) -> None:
        self._tell("stopping after this step, with a checkpoint; once more stops at once")
        self._told = True
