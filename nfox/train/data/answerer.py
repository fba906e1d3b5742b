"""The interface of whoever answers the questions of a dataset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from nfox.text.messages import Message

Answers = list[Message | str]
"""One entry for each conversation: the reply, or a line that says why there is none."""

EMPTY_REPLY = "the reply is empty"


class Answerer(ABC):
    """Answers the last messages of many conversations at once."""

    @abstractmethod
    def answer(self, conversations: Sequence[Sequence[Message]]) -> Answers:
        """Return the reply to each conversation, or a line that says why there is none.

        Args:
            conversations: conversations that end with a user's message.
        """
