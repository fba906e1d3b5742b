"""The command that shows the last reply otherwise than it was drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nfox.counting import counted
from nfox.errors import UsageError
from nfox.text.pieces import Piece

from ...display.reply_view import ReplyView
from ...display.token_view import token_view
from .registry import command

if TYPE_CHECKING:
    from ..app import ChatApp
    from ..replies import KnownReply

_WAYS = ("raw", "markdown", "tokens")


@command("/view", usage="[raw|markdown|tokens]", completions=lambda app: _WAYS)
def view(app: ChatApp, argument: str) -> None:
    """Show the last reply raw, rendered or by tokens."""
    way = argument or ("raw" if app.screen.is_markdown else "markdown")
    if way not in _WAYS:
        raise UsageError(f"/view {way}: expected one of {', '.join(_WAYS)}")
    last = app.replies.last(app.conversation)
    if way == "tokens":
        _show_tokens(app, last)
        return
    is_raw = way == "raw"
    wraps_words = app.screen.wraps_words and not is_raw
    drawn = ReplyView(replace(app.screen, is_markdown=not is_raw, wraps_words=wraps_words))
    drawn.add(last.pieces or [Piece(last.message.content, "bonus", 0)])
    drawn.close()


def _show_tokens(app: ChatApp, last: KnownReply) -> None:
    """Show the tokens of the last reply, and how many there are."""
    if not last.is_whole:
        raise UsageError(
            "how this reply was decoded is not known", "/regen answers the question again"
        )
    records = [record for part in last.parts for record in part.records]
    app.screen.console.print(token_view(records, app.screen), soft_wrap=True)
    count = sum(len(record.ids) for record in records)
    steps = counted(len(records), "step")
    each = f"{len(last.message.content) / count:.1f} characters each"
    app.say(f"{counted(count, 'token')} in {steps}, {each}")
