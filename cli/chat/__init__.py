"""The chat, its slash commands, and answers to a single prompt."""

from __future__ import annotations

import typer

from ..options.dataclass_options import grouped
from . import start


def register(app: typer.Typer) -> None:
    """Make the chat what the program does without a subcommand."""
    app.callback()(grouped(start.chat))
