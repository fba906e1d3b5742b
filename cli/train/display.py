"""What is seen of a training: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback
from typing_extensions import override

_SHOWN = ("tau", "alpha", "agreement", "forward")
"""Of what is measured on the way."""


class Display(TrainerCallback):
    """Shows steps, loss and what was measured last, on stderr.

    Args:
        wanted: False for all processes but the first.
    """

    def __init__(self, wanted: bool) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._wanted = wanted
        self._stack = ExitStack()
        self._bar = Progress(
            TextColumn("{task.completed:.0f} of {task.total:.0f} steps"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (wanted and self._console.is_terminal),
        )
        self._task: Any = None
        self._loss, self._found = "", ""

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def tell(self, line: str) -> None:
        """Write a line, above the bar if there is one."""
        if self._wanted and self._bar.disable:
            print(f"nfox: {line}", file=sys.stderr, flush=True)
        elif self._wanted:
            self._console.print(f"nfox: {line}", markup=False, soft_wrap=True)

    @override
    def on_train_begin(self, args: Any, state: Any, control: Any, **_: object) -> None:
        self._stack.enter_context(self._bar)
        self._task = self._bar.add_task("", total=state.max_steps, completed=state.global_step)

    @override
    def on_step_end(self, args: Any, state: Any, control: Any, **_: object) -> None:
        self._bar.update(self._task, completed=state.global_step)

    @override
    def on_train_end(self, args: Any, state: Any, control: Any, **_: object) -> None:
        self._stack.close()

    @override
    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: object) -> None:
        logs = logs or {}
        if "eval_loss" in logs:
            found = [f"{n} {logs[f'eval_{n}']:.2f}" for n in _SHOWN if f"eval_{n}" in logs]
            self._found = ", ".join(found)
            loss = f"eval loss {logs['eval_loss']:.4f}"
            self.tell(f"step {state.global_step}: {', '.join([loss, *found])}")
            self._describe()
        elif "loss" in logs:
            self._loss = f"loss {logs['loss']:.4f}"
            self._describe()
            if self._bar.disable:
                of = f"{state.global_step} of {state.max_steps}"
                self.tell(f"step {of}: {self._loss}, learning rate {logs['learning_rate']:.2e}")

    def _describe(self) -> None:
        """Put the last loss and what was measured last beside the bar."""
        if self._task is not None:  # a training that was finished before has no bar
            said = ", ".join(filter(None, (self._loss, self._found)))
            self._bar.update(self._task, description=said)
