"""`nfox serve` and `nfox worker`: OpenAI's API, and FastChat's."""

from __future__ import annotations

import typer

from ..options.dataclass_options import grouped
from . import command, worker


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for function in (command.serve, worker.worker):
        app.command()(grouped(function))
