"""What the chat says by itself about guesses that gain nothing, or are not made."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..display.gain import gained_nothing, guessed_nothing, guesses_nothing

if TYPE_CHECKING:
    from nfox.engine import Engine

    from .replies import Part


class GainNotes:
    """Says what guesses gain where that is nothing; why there are none is said once in a chat, not
    under every reply.

    Args:
        say: prints a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said = set[str]()

    def of_method(self, engine: Engine) -> None:
        """Say that the method of an engine guesses nothing, where that is so."""
        self._once(guesses_nothing(engine.drafter))

    def of_reply(self, engine: Engine, part: Part, tau: str) -> None:
        """Say that there were no guesses in a reply, or that they gained nothing.

        Args:
            engine: the engine that gave it.
            part: the reply.
            tau: the symbol of the tokens per step.
        """
        reply = part.exchange.reply
        self._once(guessed_nothing(engine, reply))
        if line := gained_nothing(engine, reply, part.records, tau):
            self._say(line)

    def _once(self, line: str) -> None:
        if line and line not in self._said:
            self._said.add(line)
            self._say(line)
