"""The chat without its loop: lines are handled one by one, and what they print is read."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from nfox import Conversation
from nfox.cli.chat.app import ChatApp
from nfox.cli.chat.commands import registry
from nfox.cli.display.theme import make_screen
from nfox.cli.options.chat import DisplayArguments
from nfox.engine import Engine


def make(of: Engine | Conversation, width: int = 100, **options: object) -> ChatApp:
    """Return a chat that prints to memory.

    Args:
        of: its conversation, or the engine of a new one.
        width: in columns, of what is no reply.
        options: how much is shown.
    """
    display = replace(DisplayArguments(), **options)  # type: ignore[arg-type]
    file = io.StringIO()
    conversation = of if isinstance(of, Conversation) else Conversation(of)
    app = ChatApp(conversation, make_screen(display, file), display)
    app.notes = Console(file=file, width=width, highlight=False)
    return app


def said(app: ChatApp) -> str:
    """Return what was printed since the last call."""
    file = app.screen.console.file
    assert isinstance(file, io.StringIO)
    text = file.getvalue()
    file.seek(0)
    file.truncate()
    return text


def do(app: ChatApp, text: str) -> str:
    """Handle a line that does not end the chat; return what was printed."""
    assert registry.handle(app, text)
    return said(app)


def contents(app: ChatApp) -> list[str]:
    """Return the texts of all messages."""
    return [message.content for message in app.conversation.messages]
