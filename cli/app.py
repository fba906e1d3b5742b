"""The command `nfox`: a chat, unless a subcommand says otherwise.

A command or a group of them is a package or module beside this one, whose `register` adds them;
whatever is slow to import, a command imports when it runs.
"""

from __future__ import annotations

import typer

from . import bench, chat, data, eval, export, generate, methods, serve, train

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


for group in (chat, generate, serve, methods, data, train, eval, bench, export):
    group.register(app)
