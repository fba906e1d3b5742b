"""Commands that take what was said out of the chat."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from nfox.errors import UsageError
from nfox.files.reading import refusing
from nfox.text.pieces import source_runs

from ...output_files import check_out, write_out
from ..exported import FORMATS, ExportedConversation, export
from ..paths import typed_path
from .registry import command

if TYPE_CHECKING:
    from ..app import ChatApp

_SUFFIXES = tuple(f".{format}" for format in FORMATS)


@command("/export", usage="FILE", paths=_SUFFIXES)
def export_conversation(app: ChatApp, argument: str) -> None:
    """Write the conversation as Markdown, JSON or HTML, by the file's ending."""
    path = typed_path(argument, "/export talk.html")
    format = path.suffix.lower().removeprefix(".")
    if format not in FORMATS:
        raise UsageError(f"{path}: expected a file that ends in {', '.join(_SUFFIXES)}")
    turns = app.conversation.turns
    if not turns:
        raise UsageError("there is nothing to export yet")
    if os.path.lexists(path):
        raise UsageError(f"{path} exists", "choose another name, or remove it first")
    check_out(path, "conversation")
    sources = [source_runs(pieces) for pieces in app.provenance.of(turns)]
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
