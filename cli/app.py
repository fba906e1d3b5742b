"""The command `nfox`: a chat, unless a subcommand says otherwise.

A subcommand is a module beside this one with a function that is registered here; whatever is slow
to import, it imports when it runs.
"""

from __future__ import annotations

import typer

from nfox.errors import UsageError

from . import bench, data, eval, export, generate, methods, train
from .grouped import grouped
from .options import (
    DisplayArguments,
    GenerationArguments,
    MethodArguments,
    ModelArguments,
    SessionArguments,
)


def _dashes(token: str) -> str:
    """Options of the published programs are written with underscores."""
    return token.replace("_", "-")


app = typer.Typer(
    name="nfox",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": _dashes,
    },
)


@app.callback()
@grouped
def chat(
    context: typer.Context,
    model: ModelArguments,
    method: MethodArguments,
    generation: GenerationArguments,
    display: DisplayArguments,
    session: SessionArguments,
) -> None:
    """Chat with a language model that answers faster by speculation, and shows it.

    Without a prompt and at a terminal: a chat; /help says what can be typed there.
    """
    if context.invoked_subcommand is not None:
        _refuse_stray_options(context)
        return
    from .start import run

    run(model, method, generation, display, session)


def _refuse_stray_options(context: typer.Context) -> None:
    """Options of the chat before a subcommand would be ignored; better to say so."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            command = context.invoked_subcommand
            raise UsageError(
                f"{parameter.opts[0]} stands before {command}",
                f"options of {command} follow it: nfox {command} {parameter.opts[0]} ...",
            )


for command in (generate, methods, data, train, eval, bench, export):
    command.register(app)
