"""Ctrl-C during a training: the first one stops it with a checkpoint, a second one at once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from transformers import TrainerCallback
from typing_extensions import override


class Interrupt(TrainerCallback):
    """Handles Ctrl-C, and the SIGTERM of torchrun and of schedulers, from the first step on.

    Before it there is nothing to save, and Ctrl-C raises KeyboardInterrupt as everywhere.

    Args:
        log: takes a line.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._requested = False
        self._announced = True
        self._former_handlers: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _restore(self) -> None:
        while self._former_handlers:
            signal.signal(*self._former_handlers.popitem())

    def requested(self) -> bool:
        """Return whether the training is to stop after the current step."""
        if not self._announced:
            self._announce()
        return self._requested

    @override
    def on_train_begin(self, args: Any, state: Any, control: Any, **_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._former_handlers[number] = signal.signal(number, self._handle)

    @override
    def on_train_end(self, args: Any, state: Any, control: Any, **_: object) -> None:
        # What follows is short, and can be done again from the last checkpoint.
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested, self._announced = True, False
        with suppress(RuntimeError):  # in the middle of another line: after the step then
            self._announce()

    def _announce(self) -> None:
        self._log("stopping after this step, with a checkpoint; once more stops at once")
        self._announced = True
