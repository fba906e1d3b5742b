"""The program's commands, built once per process: building all thirty takes longer than most of
them do.
"""

from __future__ import annotations

from functools import cache

import typer.main
import typer.testing


def keep_commands() -> None:
    """Let typer build an app's commands the first time only, whoever runs it in this process."""
    kept = cache(typer.main.get_command)
    typer.main.get_command = kept  # for an app that is called
    typer.testing._get_command = kept
