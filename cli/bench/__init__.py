"""`nfox bench`: methods and other programs measured, and what is done with results."""

from __future__ import annotations

import typer

from ..options.dataclass_options import grouped
from . import command, compare, forwards, report


def register(app: typer.Typer) -> None:
    """Add the command, and what is done with its results."""
    group = typer.Typer(invoke_without_command=True, pretty_exceptions_enable=False)
    group.callback()(grouped(command.bench))
    for function in (compare.compare, report.report, compare.baseline, forwards.forwards):
        group.command()(grouped(function))
    app.add_typer(group, name="bench")
