"""The options of the chat: how replies are drawn, where questions come from, what is kept.

Nothing here may import torch, nor anything that does: help must be instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import typer

from nfox.version import __version__

from ..printing import say
from .dataclass_options import option, rare

_display, _session = partial(option, "Display"), partial(option, "Session")
_rare_display, _rare_session = partial(rare, "Display"), partial(rare, "Session")
Text = str | None
Switch = bool
Style = Literal["rich", "simple", "programmatic"]
Color = Literal["auto", "always", "never"]
Render = Literal["auto", "markdown", "text"]
Provenance = Literal["auto", "off", "color", "underline", "brackets"]
Theme = Literal["auto", "dark", "light"]
ContextPolicy = Literal["drop", "stop"]
LAST = "last"
"""Stands for the conversation that was written last, where --resume has no number."""


@dataclass(frozen=True)
class DisplayArguments:
    """How replies are drawn."""

    style: Annotated[
        Style, _rare_display("simple: plain lines; programmatic: JSONL in and out.", "--style")
    ] = "rich"
    render: Annotated[
        Render, _rare_display("Replies as Markdown, or as they are written.", "--render")
    ] = "auto"
    word_wrap: Annotated[
        Switch, _rare_display("Rows of replies end between words.", "--word-wrap/--no-word-wrap")
    ] = True
    provenance: Annotated[
        Provenance, _rare_display("How drafted tokens are marked.", "--provenance")
    ] = "auto"
    color: Annotated[Color, _rare_display("NO_COLOR is respected.", "--color")] = "auto"
    no_color: Annotated[Switch, _rare_display("As --color never.", "--no-color", envvar=None)] = (
        False
    )
    theme: Annotated[Theme, _rare_display("The background; auto asks.", "--theme")] = "auto"
    ascii: Annotated[Switch, _rare_display("No symbols beyond ASCII.", "--ascii")] = False
    live: Annotated[
        Switch, _rare_display("A status line during the reply.", "--live/--no-live")
    ] = True
    stats: Annotated[Switch, _rare_display("A footer after the reply.", "--stats/--no-stats")] = (
        True
    )
    fold_thinking: Annotated[
        Switch, _rare_display("Hide what is inside <think>.", "--fold-thinking")
    ] = False
    verbose: Annotated[
        int,
        _display(
            "-v: every step; -vv: probabilities and trees.",
            "--verbose",
            "-v",
            count=True,
            metavar="",
            show_default=False,
        ),
    ] = 0
    quiet: Annotated[Switch, _display("Replies and errors only.", "--quiet", "-q")] = False


def _version(asked: bool) -> None:
    if asked:
        say(f"nfox {__version__}")
        raise typer.Exit


@dataclass(frozen=True)
class SessionArguments:
    """Where questions come from and where replies go."""

    prompt: Annotated[
        Text,
        _session(
            "Answer this and exit; text on stdin is added (</dev/null: none), - is that alone.",
            "--prompt",
            "-p",
            envvar=None,
        ),
    ] = None
    as_json: Annotated[Switch, _session("Events as JSON lines.", "--json")] = False
    compare: Annotated[
        Switch, _rare_session("After the answer: what drafting gained.", "--compare", "-b")
    ] = False
    multiline: Annotated[
        Switch, _rare_session("Enter makes a new line, Esc Enter sends.", "--multiline")
    ] = False
    context_policy: Annotated[
        ContextPolicy | None,
        _rare_session(
            "A full context: stop, or drop the oldest turns. [default: drop in the chat]",
            "--context-policy",
        ),
    ] = None
    no_history: Annotated[Switch, _rare_session("Each prompt starts fresh.", "--no-history")] = (
        False
    )
    no_input_history: Annotated[
        Switch, _rare_session("Keep neither input nor conversation.", "--no-input-history")
    ] = False
    no_save: Annotated[Switch, _session("Keep the conversation out of the log.", "--no-save")] = (
        False
    )
    resume: Annotated[
        Text,
        _session(
            "Go on with the last conversation, or number ID.",
            "--resume",
            envvar=None,
            metavar="[ID]",
        ),
    ] = None
    version: Annotated[
        Switch,
        _session(
            "Show the version.", "--version", "-V", envvar=None, callback=_version, is_eager=True
        ),
    ] = False
