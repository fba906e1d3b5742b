"""The display of a training on stderr: a progress bar on a terminal, lines elsewhere."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback
from typing_extensions import override

from nfox.controls import one_line

from ..display.console import CleanConsole
from ..printing import tell

_SHOWN_METRICS = ("tau", "alpha", "agreement", "forward")
"""The metrics of an evaluation that are displayed beside the loss."""


class Display(TrainerCallback):
    """Displays the steps, the training loss and the metrics of the last evaluation.

    Args:
        visible: whether anything is displayed: in the first process only.
    """

    def __init__(self, visible: bool) -> None:
        self._console = CleanConsole(stderr=True)
        self._visible = visible
        self._stack = ExitStack()
        self._bar = Progress(
            TextColumn("{task.completed:.0f} of {task.total:.0f} steps"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (visible and self._console.is_terminal),
        )
        self._task: Any = None
        self._loss, self._metrics = "", ""

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def log(self, line: str) -> None:
        """Print a line, above the progress bar if there is one."""
        if self._visible and self._bar.disable:
            tell(f"nfox: {line}")
        elif self._visible:
            self._console.print(one_line(f"nfox: {line}"), soft_wrap=True)

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
            names = [name for name in _SHOWN_METRICS if f"eval_{name}" in logs]
            metrics = [f"{name} {logs[f'eval_{name}']:.2f}" for name in names]
            self._metrics = ", ".join(metrics)
            loss = f"eval loss {logs['eval_loss']:.4f}"
            self.log(f"step {state.global_step}: {', '.join([loss, *metrics])}")
            self._update_description()
        elif "loss" in logs:
            self._loss = f"loss {logs['loss']:.4f}"
            self._update_description()
            if self._bar.disable:
                step = f"step {state.global_step} of {state.max_steps}"
                self.log(f"{step}: {self._loss}, learning rate {logs['learning_rate']:.2e}")

    def _update_description(self) -> None:
        """Show the last training loss and the last metrics beside the progress bar."""
        if self._task is not None:  # a training that was finished before has no bar
            description = ", ".join(filter(None, (self._loss, self._metrics)))
            self._bar.update(self._task, description=description)
