"""Commands that look at the last reply: its numbers, its steps, and how plain decoding fares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nfox.decoding.stats import DEFINITIONS
from nfox.errors import UsageError

from ...display.reply_stats import details, footer
from ...display.steps import print_steps
from ..compare import compare
from .registry import command

if TYPE_CHECKING:
    from nfox.reply import Reply

    from ..app import ChatApp


def _last(app: ChatApp) -> Reply:
    reply = app.engine.reply
    if not reply.stats.steps:
        raise UsageError("there is no reply yet")
    return reply


@command("/stats", usage="[explain]", words=lambda app: ("explain",))
def stats(app: ChatApp, rest: str) -> None:
    """Show the numbers of the last reply; their meaning."""
    if rest == "explain":
        for name, meaning in DEFINITIONS.items():
            app.say(f"{name.ljust(11)} {meaning}")
        return
    reply, symbols = _last(app), app.screen.symbols
    app.say(footer(app.engine, reply, symbols, width=1000))
    for line in details(reply.stats, symbols):
        app.say(line)
    if app.engine.costs is not None:
        app.say(f"costs     {app.engine.costs}")


@command("/steps")
def steps(app: ChatApp, rest: str) -> None:
    """Show the steps of the last reply: sources, refusals."""
    _last(app)
    print_steps(app.records, app.screen, app.screen.console, trees=app.display.verbose > 1)


@command("/compare")
def compare_methods(app: ChatApp, rest: str) -> None:
    """Measure the speed-up: the last reply, plainly decoded."""
    reply = _last(app)
    app.say(compare(app, reply))
