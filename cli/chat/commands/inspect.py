"""Commands about the last reply: its numbers, its steps, and the speed-up over plain decoding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nfox.decoding.stats import DEFINITIONS
from nfox.drafters import method_names
from nfox.errors import UsageError

from ...display.race_picture import RacePicture
from ...display.reply_stats import NAME_CELLS, details, footer
from ...display.step_trees import meanings, print_trees, print_whole
from ...display.why import explain, of_forwards
from ..compare import compare, prove
from ..race import measure, parse, show, usual_methods
from .registry import command

if TYPE_CHECKING:
    from ..app import ChatApp
    from ..replies import Part


_ALL = "all"
_BELOW = 7  # rows of a screen that /steps leaves to the command, its marks and the next prompt


def last_part(app: ChatApp) -> Part:
    """Return how the last reply was made; raise UsageError if there is none, or it is not known."""
    return app.replies.last_part(app.conversation)


@command("/stats", usage="[explain]", completions=lambda app: ("explain",))
def stats(app: ChatApp, argument: str) -> None:
    """Show the numbers of the last reply; their meaning."""
    if argument == "explain":
        for name, meaning in DEFINITIONS.items():
            app.say(f"{name.ljust(11)} {meaning}", 12)
        return
    exchange, symbols = last_part(app).exchange, app.screen.symbols
    app.say(footer(app.engine, exchange, symbols, width=1000))
    for line in details(app.engine, exchange.reply, symbols):
        app.say(line, NAME_CELLS)
    for line in of_forwards(app.engine):
        app.say(line, NAME_CELLS)
    if app.engine.threads is not None:
        app.say(f"threads   {app.engine.threads}", NAME_CELLS)


@command("/why")
def why(app: ChatApp, argument: str) -> None:
    """Show why the last reply was as fast as it was."""
    part = last_part(app)
    for line in explain(app.engine, part.exchange.reply, part.records):
        app.say(line, NAME_CELLS)


@command("/steps", usage=f"[N|{_ALL}]", completions=lambda app: (_ALL,))
def steps(app: ChatApp, argument: str) -> None:
    """Draw what was drafted, a screenful from step N on."""
    records, console = last_part(app).records, app.screen.console
    count, is_paged = len(records), console.is_terminal and argument != _ALL
    if argument not in ("", _ALL) and not (argument.isdecimal() and 1 <= int(argument) <= count):
        raise UsageError(f"/steps {argument}: expected a step, 1 to {count}, or {_ALL}")
    first = int(argument) if argument.isdecimal() else 1
    most = max(console.height - _BELOW, 1) if is_paged else None
    last = print_trees(records, app.screen, console, first, most)
    for line in meanings(records, app.screen.symbols):
        app.say(line)
    if last < count:
        app.say(f"{count - last} more: /steps {last + 1} goes on, /steps {_ALL} draws all")


@command("/step", usage="N")
def step(app: ChatApp, argument: str) -> None:
    """Draw one step of the last reply whole."""
    records = last_part(app).records
    count = len(records)
    if not argument.isdecimal() or not 1 <= int(argument) <= count:
        wanted = f"there is no step {argument}" if argument else "which step?"
        raise UsageError(wanted, f"/step N, from 1 to {count}: /steps shows them")
    print_whole(int(argument), records, app.screen, app.screen.console)


@command("/compare")
def compare_methods(app: ChatApp, argument: str) -> None:
    """Measure the speed-up: the last reply, plainly decoded."""
    app.say(compare(app, last_part(app).exchange))


@command("/prove")
def prove_reply(app: ChatApp, argument: str) -> None:
    """Check that plain decoding gives the same reply."""
    for line in prove(app, last_part(app).exchange):
        app.say(line)


@command("/race", usage="[A B C]", completions=lambda app: method_names())
def race(app: ChatApp, argument: str) -> None:
    """Answer again by several methods, side by side."""
    last = last_part(app).exchange
    entrants = parse(argument.split() or usual_methods(app.engine))
    measured = measure(app.engine, last.request, entrants, app.screen, app.say)
    show(RacePicture(measured, app.engine.model.tokenizer), app.screen, app.say)
