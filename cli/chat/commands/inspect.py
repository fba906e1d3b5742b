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

    from ..app import Talk


def _last(talk: Talk) -> Reply:
    reply = talk.chat.reply
    if not reply.stats.steps:
        raise UsageError("there is no reply yet")
    return reply


@command("/stats", usage="[explain]", words=lambda talk: ("explain",))
def stats(talk: Talk, rest: str) -> None:
    """Show the numbers of the last reply; their meaning."""
    if rest == "explain":
        for name, meaning in DEFINITIONS.items():
            talk.say(f"{name.ljust(11)} {meaning}")
        return
    reply, symbols = _last(talk), talk.screen.symbols
    talk.say(footer(talk.chat, reply, symbols, width=1000))
    for line in details(reply.stats, symbols):
        talk.say(line)
    if talk.chat.costs is not None:
        talk.say(f"costs     {talk.chat.costs}")


@command("/steps")
def steps(talk: Talk, rest: str) -> None:
    """Show the steps of the last reply: sources, refusals."""
    _last(talk)
    print_steps(talk.records, talk.screen, talk.screen.console, trees=talk.display.verbose > 1)


@command("/compare")
def compare_methods(talk: Talk, rest: str) -> None:
    """Measure the speed-up: the last reply, plainly decoded."""
    reply = _last(talk)
    talk.say(compare(talk, reply))
