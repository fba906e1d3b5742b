"""`nfox log`: the conversations that were had, listed, searched, shown, exported, deleted."""

from __future__ import annotations

import typer

from ..options.dataclass_options import grouped
from . import commands


def register(app: typer.Typer) -> None:
    """Add the commands of `nfox log` to the program."""
    group = typer.Typer(
        help="List, search, show, export and delete the conversations of the chat.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    group.command("list")(grouped(commands.list_conversations))
    for function in (commands.search, commands.show, commands.export, commands.delete):
        group.command()(grouped(function))
    app.add_typer(group, name="log")
