"""Judge drafted tokens. A rule says which nodes the target accepts; verify() finds the longest
accepted path. Greedy, sampling, rejection and typical acceptance differ in nothing else
(`nfox.decoding.rules`).

A rule also says how a draft model draws its guesses, because what it accepts depends on that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from nfox.decoding.tree import TokenTree


@dataclass(frozen=True)
class Judgement:
    """What a rule says of a tree.

    Args:
        accepted: one bool per node; the root is always accepted.
        target_tokens: the target's own token after every node.
        scores: one number per node that breaks ties between equally deep paths; None: the first.
    """

    accepted: list[bool]
    target_tokens: list[int]
    scores: list[float] | None = None


@dataclass(frozen=True)
class Verdict:
    """What becomes of a tree.

    Args:
        path: the accepted nodes, the root first.
        bonus: the target's own token after the last of them.
        target_tokens: the target's own token after every node of the tree.
    """

    path: list[int]
    bonus: int
    target_tokens: list[int]


class Draw(NamedTuple):
    """Guesses of a draft model for one place.

    Args:
        tokens: all different, the best first.
        chances: how sure the draft model is that each will be accepted, falling.
        q: [V] the distribution they were drawn from, where the rule needs it.
    """

    tokens: list[int]
    chances: list[float]
    q: Tensor | None = None


class Rule(ABC):
    """How tokens are chosen in one reply, by the target and by a draft model.

    Make a new one for every reply: it may hold the state of a random generator.

    Attributes:
        lossless: whether replies follow the target's own distribution.
        draws_one: whether it needs the q of a guess, and therefore draws one guess at a place only.
    """

    name: ClassVar[str]
    draws_one: ClassVar[bool] = False
    lossless: bool = True

    @abstractmethod
    def judge(self, tree: TokenTree, logits: Tensor, past: Sequence[int]) -> Judgement:
        """Say which nodes are accepted, and the target's own token after each.

        Args:
            tree: what was drafted.
            logits: [N, V] of the target after every node.
            past: the tokens before the root.
        """

    @abstractmethod
    def draw(self, logits: Tensor, past: Sequence[int], count: int = 1) -> Draw:
        """Draw a draft model's guesses from its logits after `past`.

        Args:
            logits: [V] of the draft model.
            past: the tokens before the guess.
            count: how many guesses are wanted at most.
        """


def verify(tree: TokenTree, logits: Tensor, rule: Rule, past: Sequence[int]) -> Verdict:
    """Find the longest path of `tree` that `rule` accepts, and the target's token after it.

    Args:
        tree: what was drafted.
        logits: [N, V] of the target after every node.
        rule: the acceptance rule.
        past: the tokens before the root.
    """
    judgement = rule.judge(tree, logits, past)
    path = tree.longest(judgement.accepted, judgement.scores)
    return Verdict(path, judgement.target_tokens[path[-1]], judgement.target_tokens)
