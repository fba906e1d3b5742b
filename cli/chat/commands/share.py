"""Commands that take what was said out of the chat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

from nfox.controls import sanitize
from nfox.counting import counted
from nfox.errors import UsageError
from nfox.files.reading import refusing
from nfox.text.pieces import source_runs

from ...output_files import check_new, write_out
from ...paths import typed_path
from ..clipboard import TERMINAL, copy, takes_sequences
from ..exported import FORMATS, ExportedConversation, export
from .registry import command

if TYPE_CHECKING:
    from ..app import ChatApp

_THOUGHT = "</think>"
_SUFFIXES = tuple(f".{format}" for format in FORMATS)


@command("/copy", usage="[code]", completions=lambda app: ("code",))
def copy_reply(app: ChatApp, argument: str) -> None:
    """Copy the last reply, or its last block of code."""
    if argument not in ("", "code"):
        raise UsageError(f"/copy {argument}: expected code or nothing")
    last = app.replies.last(app.conversation)
    text = sanitize(last.message.content.rpartition(_THOUGHT)[2].strip())
    if argument:
        blocks = [token for token in MarkdownIt().parse(text) if token.type == "fence"]
        if not blocks:
            raise UsageError("the last reply has no block of code", "/copy copies all of it")
        text = blocks[-1].content.rstrip("\n")
    terminal = app.screen.console.file
    ways = copy(text, terminal if takes_sequences(terminal) else None)
    if not ways:
        raise UsageError("there is no clipboard here", "wl-copy, xclip or xsel reach the desktop's")
    unsure = ", if it takes that" if len(ways) == 1 and ways[0] == TERMINAL else ""
    lines = f"{counted(len(text.splitlines()), 'line')}, " if "\n" in text else ""
    app.say(f"copied {lines}{counted(len(text), 'character')} by {' and '.join(ways)}{unsure}")


@command("/export", usage="FILE", paths=_SUFFIXES)
def export_conversation(app: ChatApp, argument: str) -> None:
    """Write the conversation as .md, .json or .html."""
    path = typed_path(argument, "/export talk.html")
    format = path.suffix.lower().removeprefix(".")
    if format not in FORMATS:
        raise UsageError(f"{path}: expected a file that ends in {', '.join(_SUFFIXES)}")
    turns = app.conversation.turns
    if not turns:
        raise UsageError("there is nothing to export yet")
    check_new(path, "conversation")
    sources = [source_runs(pieces) for pieces in app.replies.pieces(turns)]
    if len(turns) < len(app.conversation.messages):
        sources.insert(0, [])  # of the system message
    document = ExportedConversation(
        app.conversation.messages,
        app.engine.model.name,
        app.engine.template.name,
        sources,
    )
    with refusing(path, "a name that a file can have"):
        write_out(path, export(document, format), "the chat still has it")
    app.say(f"the conversation is in {path}")
