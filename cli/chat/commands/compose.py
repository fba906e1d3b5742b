"""Commands that make the next message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..editor import edit
from .registry import command

if TYPE_CHECKING:
    from ..app import ChatApp


@command("/edit", usage="[TEXT]")
def edit_message(app: ChatApp, argument: str) -> None:
    """Write the next message in your editor; it comes back to be sent."""
    app.next_input = edit(argument)
    if not app.next_input:
        app.say("nothing was written")
