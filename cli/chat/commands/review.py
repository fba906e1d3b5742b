"""Commands that look at the conversation: its turns, its tokens, what is in force."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from rich.cells import cell_len

from nfox.errors import UsageError
from nfox.reply import Settings
from nfox.text.pieces import Piece

from ...display.context_bar import context_bar, context_lines
from ...display.excerpt import excerpt
from ...display.header import method_line, model_name, thinking
from ...display.reply_view import ReplyView
from ..context_use import measure, split_turns
from .registry import command
from .settings import format_value, values_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nfox.text.messages import Message
    from nfox.text.turns import ContextPolicy

    from ..app import ChatApp


_WHEN_FULL: dict[ContextPolicy, str] = {
    "drop": "the oldest turns are no longer read",
    "stop": "the question is refused",
}


def _numbers(app: ChatApp) -> Iterable[str]:
    return map(str, range(1, len(split_turns(app.conversation.turns)) + 1))


@command("/history", usage="[N]", completions=_numbers)
def history(app: ChatApp, argument: str) -> None:
    """List the turns of this conversation, or show one."""
    turns = split_turns(app.conversation.turns)
    if not turns:
        raise UsageError("nothing was said yet")
    if argument:
        _show_turn(app, argument, len(turns))
        return
    dot, ellipsis = app.screen.symbols.dot, app.screen.symbols.ellipsis
    cells = max((app.notes.width - 5 - len(dot)) // 2, 8)
    for number, messages in enumerate(turns, 1):
        question, *replies = (excerpt(m.content, cells, ellipsis) for m in messages)
        padding = " " * (cells - cell_len(question))
        app.say(f"{number:>3}  {question}{padding if replies else ''}{dot.join(['', *replies])}")


def _show_turn(app: ChatApp, argument: str, count: int) -> None:
    """Show the messages of a turn as they were said, replies with what was drafted in them."""
    if not (argument.isdecimal() and 1 <= int(argument) <= count):
        raise UsageError(f"/history {argument}: expected the number of a turn, 1 to {count}")
    pieces = app.replies.pieces(app.conversation.turns)
    shown = split_turns(
        list(zip(app.conversation.turns, pieces, strict=True)), lambda pair: pair[0]
    )
    for message, known in shown[int(argument) - 1]:
        show_message(app, message, known)


def show_message(
    app: ChatApp, message: Message, known: list[Piece], last: int | None = None
) -> None:
    """Show a message as it was said, a reply as it was drawn.

    Args:
        app: the chat.
        message: the message.
        known: its pieces; none where they are not known.
        last: how many of its last lines are shown; None for all.
    """
    is_reply = message.role == "assistant"
    app.say(f"{message.role}:")
    # A question is shown as it was typed.
    screen = app.screen if is_reply else replace(app.screen, is_markdown=False)
    view = ReplyView(screen, fold=app.fold and is_reply, last=last)
    view.add(known or [Piece(message.content or " ", "bonus", 0)])
    view.close()


@command("/tokens")
def tokens(app: ChatApp, argument: str) -> None:
    """Show what fills the context, and the room left."""
    use = measure(app.conversation)
    app.say(context_bar(use, app.screen.symbols, app.notes.width - 1))
    for line in context_lines(
        use, partial(excerpt, ellipsis=app.screen.symbols.ellipsis), app.notes.width
    ):
        app.say(line)


@command("/params")
def params(app: ChatApp, argument: str) -> None:
    """Show all that is in force: model, method, settings."""
    engine, summary = app.engine, app.engine.summary()
    when_full = _WHEN_FULL[app.conversation.context_policy]
    rows = {
        "model": model_name(engine),
        "adapter": summary.adapter or "none",
        "loaded as": f"{summary.dtype} on {summary.device}",
        "method": method_line(engine),
        "template": engine.template.in_words,
        "think": thinking(engine),
        "context": f"{engine.max_context:,} tokens; when full, {when_full}",
    }
    if engine.threads is not None:
        rows["threads"] = str(engine.threads)
    defaults = values_of(Settings())
    for name, value in values_of(engine.settings).items():
        changed = f"  (default {format_value(defaults[name])})" if value != defaults[name] else ""
        rows[name] = f"{format_value(value)}{changed}"
    width = max(map(len, rows)) + 2
    for name, text in rows.items():
        app.say(f"{name.ljust(width)}{text}", indent=width)
