"""`nfox log`: the conversations that were had, listed, searched, shown, exported, deleted."""

from __future__ import annotations

import typer

from ..options.dataclass_options import grouped
from . import commands


def register(app: typer.Typer) -> None:
    """Add the commands of `nfox log` to the program."""
    group = typer.Typer(invoke_without_command=True, pretty_exceptions_enable=False)
    group.callback()(grouped(commands.log))
    group.command("list")(grouped(commands.list_conversations))
    for function in (commands.search, commands.show, commands.export, commands.delete):
        group.command()(grouped(function))
    app.add_typer(group, name="log")
