"""Drafters whose heads look back: they attend to the hidden states of all that was read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from typing_extensions import override

from nfox.decoding.drafter import Context
from nfox.drafters.common.heads import HeadsDrafter
from nfox.heads.attention import DecoderLayer
from nfox.heads.state_cache import StateCache


class AttendingHeadsDrafter(HeadsDrafter):
    """A drafter with heads that attend to the past; arguments are those of `HeadsDrafter`.

    Attributes:
        state_cache: what the heads remember of the past, from step to step.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.state_cache = StateCache(self.attending_layers, self.heads.norm)

    @property
    @abstractmethod
    def attending_layers(self) -> Iterable[DecoderLayer]:
        """The layers of the heads that attend to the past, one after the other."""

    @override
    def unread_count(self, context: Context) -> int:
        length = len(context.tokens)
        return length - self.state_cache.forget_changed(context.cache) if length else 0

    @override
    def rewind(self, length: int) -> None:
        """Forget the states after the first `length` tokens. The next proposal compares all of the
        past, since other methods may have changed it meanwhile.
        """
        self.state_cache.truncate(length)
