"""The command `nfox`: a chat, unless a subcommand says otherwise.

A group of subcommands is a package beside this module, whose `register` adds them; whatever is slow
to import, a command imports when it runs.
"""

from __future__ import annotations

import typer

from . import bench, data, eval, export, generate, methods, serve, train
from .engine_arguments import EngineArguments
from .options.dataclass_options import grouped, refuse_stray_options
from .options.groups import DisplayArguments, SessionArguments

_PUBLISHED_NAMES = {
    "target-model-name": "model",
    "approx-model-name": "draft-model",
    "input": "prompt",
    "max-tokens": "max-new-tokens",
}
"""Our options by the names that they have in LLMSpeculativeSampling."""


def _our_name(token: str) -> str:
    """Return our name of an option that was typed as published programs write it."""
    name = token.replace("_", "-")
    return _PUBLISHED_NAMES.get(name, name)


app = typer.Typer(
    name="nfox",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": _our_name,
    },
)


@app.callback()
@grouped
def chat(
    context: typer.Context,
    engine_arguments: EngineArguments,
    display: DisplayArguments,
    session: SessionArguments,
) -> None:
    """Chat with a language model that answers faster by speculation, and shows it.

    Without a prompt and at a terminal: a chat; /help says what can be typed there.
    """
    if context.invoked_subcommand is not None:
        refuse_stray_options(context)
        return
    from .chat.start import run

    run(engine_arguments, display, session)


for group in (generate, serve, methods, data, train, eval, bench, export):
    group.register(app)
