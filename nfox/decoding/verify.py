"""Judge drafted tokens. A rule says which nodes the target accepts; verify() finds the longest
accepted path. Greedy, sampling, rejection and typical acceptance differ in nothing else
(`nfox.decoding.rules`).

A rule also says how a draft model draws its guesses, because what it accepts depends on that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from nfox.decoding.tree import TokenTree


def _released(node: int) -> int:
    raise RuntimeError(f"the token after node {node} is asked for after the step that followed it")


class TargetTokens(Sequence[int]):
    """The target's own tokens after some nodes of a tree, each drawn when it is first asked for:
    most are behind nodes that were refused, and few drafters look at those.

    Args:
        draw: returns the token after a node; it is called again for one that is asked for again.
        nodes: their numbers.
    """

    def __init__(self, draw: Callable[[int], int], nodes: Sequence[int]) -> None:
        self._draw, self._nodes = draw, nodes

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> TargetTokens: ...

    @override
    def __getitem__(self, index: int | slice) -> int | TargetTokens:
        if isinstance(index, slice):
            return TargetTokens(self._draw, self._nodes[index])
        return self._draw(self._nodes[index])

    @override
    def __len__(self) -> int:
        return len(self._nodes)

    def release(self) -> None:
        """Give back the logits that tokens are drawn from: none can be drawn from then on."""
        self._draw = _released


@dataclass(frozen=True)
class Judgement:
    """Which nodes of a tree a rule accepts, and the target's tokens.

    Args:
        accepted: one bool per node; the root is always accepted, and what is below a node that is
            not accepted does not count.
        target_tokens: the target's own token after every node.
        scores: one number per node; of equally deep accepted paths the one with the largest sum
            wins. Without scores the first of them does.
    """

    accepted: list[bool]
    target_tokens: Sequence[int]
    scores: list[float] | None = None


@dataclass(frozen=True)
class Verdict:
    """The path of a tree that is accepted, and the token that follows it.

    Args:
        path: the accepted nodes, the root first.
        next_token: the target's own token after the last of them.
        target_tokens: the target's own token after every node of the tree, until the next tree is
            drafted.
    """

    path: list[int]
    next_token: int
    target_tokens: Sequence[int]

    def release(self) -> None:
        """Give back the logits that more of the target's tokens would be drawn from."""
        if isinstance(self.target_tokens, TargetTokens):
            self.target_tokens.release()


class Draw(NamedTuple):
    """Guesses of a draft model for one position.

    Args:
        tokens: the guesses, all different, the best first.
        probabilities: of the guesses, as the draft model sees it; falling. How likely a guess is to
            be accepted is judged by it.
        q: [V] the distribution that they were drawn from, where the rule needs it.
    """

    tokens: list[int]
    probabilities: list[float]
    q: Tensor | None = None


class Noise(NamedTuple):
    """What the target's token at one position is drawn by: it is the token for which
    logit / temperature + noise is largest, of those that the sampling leaves.

    Args:
        temperature: above 0.
        of_tokens: returns the noise [n] of token ids [n].
    """

    temperature: float
    of_tokens: Callable[[NDArray[np.uint32]], NDArray[np.float32]]

    def in_logits(self, tokens: NDArray[np.uint32]) -> NDArray[np.float32]:
        """Return what noise adds to the logits [n] of tokens: temperature * noise.

        The token is the same as by logit / temperature + noise. But the logits of heads that guess
        keep their scale, so that at temperatures near 0 they are as sure as they are at 0, and not
        surer.

        Args:
            tokens: their ids [n].
        """
        return self.of_tokens(tokens) * np.float32(self.temperature)


class Rule(ABC):
    """How tokens are chosen in one reply, by the target and by a draft model.

    Make a new one for every reply: it may hold the state of a random generator.

    Attributes:
        name: the rule's name on the command line.
        follows_drafts: whether the text depends on what is drafted, at the same noise.
    """

    name: ClassVar[str]
    follows_drafts: ClassVar[bool] = False

    @property
    def lossless(self) -> bool:
        """Whether replies follow the target's own distribution."""
        return True

    @property
    def draws_likeliest(self) -> bool:
        """Whether `draw` returns the tokens of the largest logits, with the noise that `noise_at`
        knows added to them, whatever was said before.
        """
        return False

    @abstractmethod
    def judge(self, tree: TokenTree, logits: Tensor, past: Sequence[int]) -> Judgement:
        """Return which nodes of a tree are accepted, and the target's own token after each.

        Args:
            tree: what was drafted, N nodes.
            logits: [N, V] of the target after every node.
            past: the tokens before the root.
        """

    @abstractmethod
    def draw(self, logits: Tensor, past: Sequence[int], count: int = 1) -> Draw:
        """Return a draft model's guesses for the token after `past`; none if its logits are no
        numbers.

        Args:
            logits: [V] of the draft model after `past`.
            past: the tokens before the guess.
            count: the most guesses to return; a rule that needs q returns only one.
        """

    def noise_at(self, position: int) -> Noise | None:
        """Return what the target's token at a position will be drawn by, for drafters that guess
        it by that; None where it is not known, or not what decides.

        Args:
            position: how many tokens of the conversation come before the token.
        """
        return None


def verify(tree: TokenTree, logits: Tensor, rule: Rule, past: Sequence[int]) -> Verdict:
    """Find the longest path of a tree that a rule accepts, and the target's token after it.

    Args:
        tree: what was drafted, N nodes.
        logits: [N, V] of the target after every node.
        rule: the acceptance rule.
        past: the tokens before the root.
    """
    judgement = rule.judge(tree, logits, past)
    path = tree.longest_accepted_path(judgement.accepted, judgement.scores)
    return Verdict(path, judgement.target_tokens[path[-1]], judgement.target_tokens)
