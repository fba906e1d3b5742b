"""The command `nfox`: a chat, unless a subcommand says otherwise.

A command or a group of them is a package or module beside this one, whose `register` adds them;
whatever is slow to import, a command imports when it runs.
"""

from __future__ import annotations

import typer

from . import (
    bench,
    chat,
    data,
    doctor,
    eval,
    export,
    generate,
    heat,
    known_models,
    log,
    methods,
    race,
    serve,
    train,
)
from .config import command as config
from .published_commands import read_published_names


def _with_hyphens(name: str) -> str:
    """Return the name of an option as ours are written."""
    return name.replace("_", "-")


app = typer.Typer(
    name="nfox",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": _with_hyphens,
    },
)


for group in (
    chat,
    generate,
    race,
    serve,
    log,
    methods,
    doctor,
    known_models,
    data,
    train,
    eval,
    bench,
    export,
    heat,
    config,
):
    group.register(app)
read_published_names(app)
