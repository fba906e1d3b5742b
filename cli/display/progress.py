"""Bars on stderr: how far loading a model has come, and how many of many things are done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from nfox.models.options import LoadProgress

from ..printing import tell
from ..suspension import suspendable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn

_AT_REST, _DRAWING = b"\r\x1b[2K\x1b[?25h", b"\x1b[?25l"
NO_PROGRESS = LoadProgress()


@contextmanager
def loading_display(wanted: bool) -> Iterator[LoadProgress]:
    """Show the progress of loading on stderr, and erase it at the end.

    Args:
        wanted: whether to show anything at all.

    Yields:
        The callbacks to which loading reports.
    """
    if not wanted:
        yield NO_PROGRESS
        return
    tell("loading", end="\r")  # importing the display takes a moment
    from rich.progress import Progress

    from .console import CleanConsole

    console = CleanConsole(stderr=True)
    with Progress(*_columns(), console=console, transient=True) as display, _lending(console):
        task, described = display.add_task("loading", total=None, count=""), "loading"

        def stage(name: str) -> None:
            nonlocal task, described
            display.remove_task(task)  # what has a total cannot lose it again
            task, described = display.add_task(name, total=None, count=""), name

        def progress(what: str, done: int, total: int) -> None:
            if done == total:  # a full bar stands still, and there are seconds of work behind it
                stage(described)
            else:
                count = _count(what, done, total)
                display.update(task, total=total or None, completed=done, count=count)

        yield LoadProgress(stage, progress)


def _columns() -> Iterator[ProgressColumn]:
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn

    yield SpinnerColumn()
    yield TextColumn("{task.description}", markup=False)
    yield BarColumn(bar_width=16)
    yield TextColumn("{task.fields[count]}", markup=False)
    yield TimeElapsedColumn()


@contextmanager
def _lending(console: Console, shown: bool = True) -> Iterator[None]:
    """Erase the row that is drawn on a console, and show the cursor, while Ctrl-Z stops the
    program: past all that is still to be written.
    """
    number = _descriptor(console) if shown and not console.is_dumb_terminal else None
    if number is None:
        yield
        return
    with suspendable(partial(os.write, number, _AT_REST), partial(os.write, number, _DRAWING)):
        yield


def _descriptor(console: Console) -> int | None:
    """Return the file descriptor that a console writes to; None if what it writes to has none."""
    try:
        return console.file.fileno()
    except OSError:
        return None


def _count(what: str, done: int, total: int) -> str:
    from rich.filesize import decimal

    if what == "bytes":
        return f"{decimal(done)} of {decimal(total)}" if total else decimal(done)
    return f"{done} of {total} {what}"


@contextmanager
def progress_bar(what: str, total: int, *, wanted: bool = True) -> Iterator[Callable[[int], None]]:
    """Show on stderr, if it is a terminal, how many of many things are done.

    Args:
        what: the name of the things, in the plural.
        total: how many there are.
        wanted: whether to show anything at all.

    Yields:
        A function that is called with how many more are done.
    """
    from rich.progress import Progress

    from .console import CleanConsole

    console = CleanConsole(stderr=True)
    shown = wanted and console.is_terminal
    with Progress(console=console, disable=not shown) as progress, _lending(console, shown):
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)
