"""The program in this process."""

from __future__ import annotations

from functools import cache
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner, Result

from nfox.cli.app import app


@cache
def root() -> Any:
    """Return the program's command, with all that are below it."""
    return get_command(app)


def run(*words: object, color: bool = False, **environment: str) -> Result:
    """Run `nfox WORDS` in 80 columns, and return what came of it.

    Args:
        words: of the command line.
        color: keep the styles of what is written.
        environment: variables to set.
    """
    env = {"COLUMNS": "80", **environment}
    args = [str(word) for word in words]
    return CliRunner().invoke(app, args, env=env, color=color, prog_name="nfox")
