"""`nfox eval`: what a model, its heads and its answers are worth."""

from __future__ import annotations

import typer

from ..options.dataclass_options import grouped
from . import gsm8k, harness, heads, jacobi, loss


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    group = typer.Typer(
        help="Measure what a model, its heads and its answers are worth.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    for function in (
        heads.heads,
        jacobi.jacobi,
        gsm8k.gsm8k,
        harness.humaneval,
        harness.spider,
        loss.loss,
    ):
        group.command()(grouped(function))
    app.add_typer(group, name="eval")
