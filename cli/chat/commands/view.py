"""The command that shows the last reply otherwise than it was drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nfox.counting import counted
from nfox.errors import UsageError
from nfox.text.pieces import Piece, text_of

from ...display.reply_view import ReplyView
from ...display.token_view import token_view
from .registry import command

if TYPE_CHECKING:
    from ..app import ChatApp

_WAYS = ("raw", "markdown", "tokens")


@command("/view", usage="[raw|markdown|tokens]", completions=lambda app: _WAYS)
def view(app: ChatApp, argument: str) -> None:
    """Show the last reply raw, rendered or by tokens."""
    way = argument or ("raw" if app.screen.is_markdown else "markdown")
    if way not in _WAYS:
        raise UsageError(f"/view {way}: expected one of {', '.join(_WAYS)}")
    turns = app.conversation.turns
    if not turns or turns[-1].role != "assistant":
        raise UsageError("there is no reply yet")
    if way == "tokens":
        _show_tokens(app, turns[-1].content)
        return
    known = app.provenance.of(turns)[-1]
    drawn = ReplyView(replace(app.screen, is_markdown=way == "markdown"))
    drawn.add(known or [Piece(turns[-1].content, "bonus", 0)])
    drawn.close()


def _show_tokens(app: ChatApp, text: str) -> None:
    """Show the tokens of the last reply, and how many there are."""
    if not app.records or text_of(app.pieces) != text:
        raise UsageError(
            "how this reply was decoded is not known", "/regen answers the question again"
        )
    app.screen.console.print(token_view(app.records, app.screen), soft_wrap=True)
    count = sum(len(record.ids) for record in app.records)
    steps = counted(len(app.records), "step")
    each = f"{len(text) / count:.1f} characters each"
    app.say(f"{counted(count, 'token')} in {steps}, {each}")
