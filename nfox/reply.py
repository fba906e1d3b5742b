"""What is asked of a reply, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nfox.decoding.generate import FinishReason, Step
from nfox.decoding.rules import make_rule
from nfox.decoding.sampling import Sampling
from nfox.decoding.stats import Stats
from nfox.decoding.verify import Rule
from nfox.errors import UsageError
from nfox.text.stream import Piece
from nfox.text.template import Message

Finish = FinishReason | Literal["interrupt"]


@dataclass(frozen=True)
class Settings:
    """What can change from reply to reply.

    Args:
        sampling: how tokens are chosen.
        accept: the acceptance rule: "exact", "rejection" or "typical".
        lenience: of rejection; below 1 it is no longer lossless.
        epsilon: of typical acceptance.
        delta: of typical acceptance.
        max_new_tokens: of a reply.
        stop: strings that end a reply, besides the template's.
        keep_logits: put the target's logits into each step.
    """

    sampling: Sampling = field(default_factory=Sampling)
    accept: str = "exact"
    lenience: float = 1.0
    epsilon: float = 0.09
    delta: float = 0.3
    max_new_tokens: int = 512
    stop: tuple[str, ...] = ()
    keep_logits: bool = False

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UsageError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        self.rule(0)  # refuses what does not fit together

    def rule(self, reply: int) -> Rule:
        """Make the acceptance rule of one reply.

        Args:
            reply: which one it is; with the seed it fixes the noise.
        """
        return make_rule(
            self.accept,
            self.sampling,
            reply=reply,
            lenience=self.lenience,
            epsilon=self.epsilon,
            delta=self.delta,
        )


@dataclass(frozen=True)
class Update:
    """What one step added to a reply.

    Args:
        pieces: text that is now certain; it may lag behind the tokens.
        step: of the loop; None for the last text, which waited for more.
    """

    pieces: tuple[Piece, ...]
    step: Step | None


@dataclass
class Reply:
    """A reply, complete or not: it grows while it is streamed.

    Args:
        method: that drafted it.
        ids: its tokens, without the stop token.
        text: what they say.
        finish: why it ended; "interrupt" until it does.
        stats: of its steps.
    """

    method: str
    ids: list[int] = field(default_factory=list)
    text: str = ""
    finish: Finish = "interrupt"
    stats: Stats = field(default_factory=Stats)

    def message(self) -> Message:
        """Return it as a message; its ids go along, so that they are never tokenised again."""
        return Message("assistant", self.text, tuple(self.ids) if self.ids else None)
