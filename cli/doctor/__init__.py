"""`nfox doctor`: whether this machine, what is installed and a model are fit, and what to change.

Each module yields findings about one subject, in the order in which a person would look.
"""

from __future__ import annotations

import typer

from ..options.dataclass_options import grouped
from .command import doctor


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("doctor")(grouped(doctor))
