"""What the loop asks of a drafter: a token tree below the root, the token that comes next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from nfox.decoding.cache import KVCache
from nfox.decoding.costs import Costs
from nfox.decoding.tree import TokenTree
from nfox.decoding.verify import Rule


@dataclass(frozen=True)
class StepTimes:
    """The seconds that the parts of a step took; `other` is what the loop itself took.

    Args:
        draft: the drafter's proposal.
        target: the target's forward over the tree.
        verify: the rule's judgement.
        cache: keeping the accepted nodes.
        other: everything else.
    """

    draft: float
    target: float
    verify: float
    cache: float
    other: float

    @property
    def total(self) -> float:
        """The seconds of the whole step."""
        return self.draft + self.target + self.verify + self.cache + self.other


@dataclass(frozen=True)
class Context:
    """All that a drafter may know when it proposes.

    Args:
        cache: the target's cache, with the tokens it has read; a drafter only looks at it.
        root: the pending token: chosen by the target, not yet read by it.
        path: the accepted nodes of the last tree, the root first; empty before the first step.
        target_tokens: the target's own token after every node of that tree, which may be drawn when
            it is asked for.
        max_depth: how many tokens deep the tree may be at most, below the root.
        rule: how tokens are chosen in this reply; a draft model draws its guesses by it.
        times: the seconds that the parts of the last step took; None before the first.
        cancelled: whether the reply is to end here, for a drafter with much to read; None where it
            cannot be cancelled.
    """

    cache: KVCache
    root: int
    path: Sequence[int]
    target_tokens: Sequence[int]
    max_depth: int
    rule: Rule
    times: StepTimes | None = None
    cancelled: Callable[[], bool] | None = None

    @property
    def tokens(self) -> Sequence[int]:
        """Every token that the target has read."""
        return self.cache.tokens

    @property
    def hidden(self) -> Tensor:
        """[len(tokens), D] the target's last hidden states of these tokens, after the norm."""
        return self.cache.hidden

    @property
    def encoder_ids(self) -> tuple[int, ...] | None:
        """The token ids that the encoder has read; None for decoder-only targets."""
        return self.cache.encoder_ids


class Drafter(ABC):
    """Guesses which tokens follow the root. The loop knows no more of a method than this.

    Attributes:
        choice: what the last tree was drafted with, in a word, where there is a choice.
    """

    choice: str = ""

    @abstractmethod
    def propose(self, context: Context) -> TokenTree:
        """Return a tree of guesses below `context.root`, at most `context.max_depth` deep."""

    def rewind(self, length: int) -> None:  # noqa: B027 - some keep nothing of the past
        """Forget the past but for its first `length` tokens; called before every reply.

        Args:
            length: how many of the tokens read before are also the beginning of the next prompt.
        """

    def unread_count(self, context: Context) -> int:
        """Return how many of the tokens that the target has read the drafter would have to read
        before it guesses; 0 for one that keeps nothing of the past.

        It may forget what the target has not read. It is asked in every step, so it must be cheap.
        """
        return 0

    def plan(self, costs: Costs) -> None:  # noqa: B027 - some always draft the same
        """Choose how much is drafted in a step, as far as the person has not; called between
        replies.

        Args:
            costs: the seconds of a target forward over N tokens, as they are now.
        """

    def describe(self) -> str:
        """Return in a few words what it drafts with, for the header and `-v`."""
        return ""
