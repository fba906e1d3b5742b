"""The chat's loop: read a line, do what it says, again.

The commands know the app that they work on; only the loop knows both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from nfox.conversation import Conversation
from nfox.errors import NfoxError

from ..display.header import print_header, print_legend
from ..display.theme import make_screen
from ..errors import INTERRUPTED, one_line, print_error
from ..options.groups import DisplayArguments, SessionArguments
from .app import ChatApp
from .commands import registry as commands
from .input import Reader, make_reader

if TYPE_CHECKING:
    from nfox.engine import Engine


def chat_loop(
    engine: Engine, loaded: float, display: DisplayArguments, session: SessionArguments
) -> None:
    """Chat until the person leaves.

    Args:
        engine: answers.
        loaded: seconds that loading it took.
        display: how much is shown.
        session: how lines are read.
    """
    screen = make_screen(display)
    app = ChatApp(Conversation(engine, history=not session.no_history), screen, display)
    app.kept = not session.no_input_history
    if not display.quiet:
        print_header(engine, screen, loaded, verbose=display.verbose > 0)
        print_legend(engine, screen)
    reader = make_reader(
        lambda typed: commands.complete(app, typed),
        plain=display.style != "rich",
        multiline=session.multiline,
        remember=not session.no_input_history,
    )
    try:
        if session.resume:
            _take(app, "/load")
        _loop(app, reader)
    except KeyboardInterrupt:
        app.rescue()
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        app.rescue()
        if display.debug:
            raise
        print_error(one_line(error), "--debug shows the traceback")
        raise typer.Exit(1) from None


def _loop(app: ChatApp, read: Reader) -> None:
    hinted = False
    while True:
        try:
            start, app.typed = app.typed, ""
            app.notes.print()
            text = read(start)
        except KeyboardInterrupt:
            if not hinted:
                app.say("^D or /exit leaves")
            hinted = True
            continue
        except EOFError:
            return
        if not _take(app, text):
            return


def _take(app: ChatApp, text: str) -> bool:
    """Do what was typed, or say why not; say whether the chat goes on."""
    try:
        return commands.take(app, text)
    except NfoxError as error:
        print_error(error.message, error.hint)
        return True
