"""`nfox train`: the training of heads, of a model for Jacobi decoding, or of a draft model."""

from __future__ import annotations

import typer

from . import command


def register(app: typer.Typer) -> None:
    """Add `nfox train` to the program."""
    settings = {
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "allow_interspersed_args": False,  # all after the method is the method's
        "help_option_names": [],
    }
    app.command(context_settings=settings)(command.train)
