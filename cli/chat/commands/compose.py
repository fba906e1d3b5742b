"""Commands that make the next message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nfox.errors import NfoxError, UsageError

from ...paths import typed_path
from ..attachments import mention, split_path, with_files
from ..editor import edit
from .registry import command

if TYPE_CHECKING:
    from ..app import ChatApp


@command("/edit", usage="[TEXT]")
def edit_message(app: ChatApp, argument: str) -> None:
    """Write the next message in your editor."""
    app.next_input = edit(argument)
    if not app.next_input:
        app.say("nothing was written")


@command("/file", usage="PATH [QUESTION]", paths=("",))
def ask_about_file(app: ChatApp, argument: str) -> None:
    """Ask about a text file; @PATH in a message does too."""
    name, question = split_path(argument)
    try:
        path = typed_path(name, "/file notes.txt what does it say?")
        if path.is_dir():
            raise UsageError(f"{name} is a folder", "/file takes one text file")
        message = with_files(app, question, {name: path})
    except NfoxError:
        app.next_input = f"/file {argument}"
        raise
    if question:
        app.send(message, typed=f"/file {argument}")
    else:
        app.next_input = f"{mention(name)} "
