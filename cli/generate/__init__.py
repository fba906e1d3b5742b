"""`nfox generate`: prompts of a file, answered."""

from __future__ import annotations

import typer

from ..options.dataclass_options import grouped
from . import command


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(grouped(command.generate))
