"""`nfox data`: the commands that prepare training data."""

from __future__ import annotations

import typer

from ..options.dataclass_options import grouped
from . import distill, synthesise, trajectories


def register(app: typer.Typer) -> None:
    """Add the commands of `nfox data` to the program."""
    group = typer.Typer(
        help="Prepare data to train on.", no_args_is_help=True, pretty_exceptions_enable=False
    )
    for function in (distill.distill, synthesise.synthesise, trajectories.trajectories):
        group.command()(grouped(function))
    app.add_typer(group, name="data")
