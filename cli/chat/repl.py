"""The chat's loop: read a line, run it as a command or send it as a message, and again.

The commands know the app that they work on; only the loop knows both.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from ..display.header import print_header, print_welcome
from ..display.theme import make_screen
from ..ending import EndedBySignal
from ..errors import report
from ..log.database import ConversationLog
from ..log.writer import LogWriter
from ..options.chat import LAST, DisplayArguments, SessionArguments
from .app import ChatApp
from .commands import registry as commands
from .context_notes import new_conversation
from .input import Reader, make_reader
from .interrupt import SecondInterrupt, Turn, interrupting

if TYPE_CHECKING:
    from nfox.engine import Engine


def chat_loop(
    engine: Engine,
    loading_seconds: float,
    display: DisplayArguments,
    session: SessionArguments,
    typed: bytes = b"",
) -> None:
    """Chat until the person leaves.

    An interrupt, or an error after which the chat cannot go on, is raised once the conversation is
    saved.

    Args:
        engine: the engine that answers.
        loading_seconds: how long loading it took.
        display: how much is shown.
        session: how lines are read, and what is saved.
        typed: keys that were read before there was a prompt.
    """
    screen = make_screen(display)
    app = ChatApp(new_conversation(engine, session, "drop"), screen, display)
    if not (session.no_save or session.no_input_history):
        app.log = LogWriter(ConversationLog())
    app.in_chat = app.explain_marks = not display.quiet
    if not display.quiet:
        print_header(engine, screen, loading_seconds, verbose=display.verbose > 0)
        print_welcome(engine, screen, questions=session.resume is None)
    reader = make_reader(
        partial(_complete, app),
        plain=display.style != "rich",
        multiline=session.multiline,
        remember=not session.no_input_history,
        say=app.say,
        typed=typed,
    )
    resume = session.resume
    _chat(app, reader, "" if resume is None else f"/resume {resume.removeprefix(LAST)}")


def _chat(app: ChatApp, read: Reader, first: str) -> None:
    """Run the command that comes first, if one does, and then read and handle lines up to the end;
    whatever ends it, the conversation is kept.
    """
    turn = Turn()
    with interrupting(turn):
        try:
            _loop(app, read, first, turn)
            app.leave()
        except EndedBySignal:  # what there is of a reply is saved by now, if anything is to be
            app.leave()
            raise
        except (KeyboardInterrupt, Exception) as error:
            if app.log is not None or not isinstance(error, SecondInterrupt):
                app.rescue()  # not where the person ends what is not to be kept
            raise


def _loop(app: ChatApp, read: Reader, first: str, turn: Turn) -> None:
    """Read and handle lines, after the first one if there is one, until one of them, or the end of
    the input, ends the chat.
    """
    text, interrupted, hinted = first, False, False
    while True:
        try:
            turn.runs = True
            if interrupted and not hinted:
                app.say("^D or /exit leaves")
                hinted = True
            interrupted = False
            if not _handle(app, text or _next_line(app, read)):
                return
        except SecondInterrupt:
            raise
        except KeyboardInterrupt:  # wherever it comes: here is nothing that another could end
            interrupted = True
        except EOFError:
            return
        finally:
            turn.runs = False
            text = ""


def _next_line(app: ChatApp, read: Reader) -> str:
    """Return the next line that is typed."""
    prefilled, app.next_input = app.next_input, ""
    app.notes.print()
    return read(prefilled)


def _handle(app: ChatApp, text: str) -> bool:
    """Run what was typed, or print why that failed; return whether the chat goes on."""
    try:
        return commands.handle(app, text)
    except Exception as error:  # of whatever kind: it has cost this line, and nothing else
        report(error)
    return True


def _complete(app: ChatApp, typed: str) -> Iterable[str]:
    """Return the words to which the end of what was typed can be completed; none if that fails."""
    try:
        return commands.complete(app, typed)
    except Exception:  # nobody has asked for anything
        return ()
