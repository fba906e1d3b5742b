"""Drafters that know the plain reply: what is left of their speed-up is the engine's doing.

One guesses it as it is, and is verified as every method is. The other is wrong on purpose: what the
engine makes of an acceptance rate, whatever the model, even one with random weights. Its replies
are forced to be the known ones: where rounded logits of a wide forward turn a near-tie, the text
would be another one, of which it knows nothing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import override

from nfox.decoding.drafter import Context
from nfox.decoding.tree import TokenTree
from nfox.decoding.verify import Draw, Judgement, Rule, TargetTokens
from nfox.drafters.common.method import DrafterInputs, Method, Options, option
from nfox.errors import UsageError
from nfox.reply import Settings


@dataclass(frozen=True)
class ReplayOptions(Options):
    """How much of the plain reply is drafted."""

    gamma: int = option(4, "tokens drafted in every step")


class ReplayDrafter(Method):
    """Drafts chains of the plain reply, as long as the reply is the plain one.

    Args:
        gamma: the most tokens of a chain.
    """

    summary = "the plain reply"
    options: ClassVar[type[Options]] = ReplayOptions

    def __init__(self, gamma: int) -> None:
        self.gamma = gamma
        self._text: list[int] = []

    @override
    @classmethod
    def build(cls, inputs: DrafterInputs, options: Any) -> ReplayDrafter:
        return cls(options.gamma)

    def know(self, text: list[int]) -> None:
        """Take the text that is to be drafted from.

        Args:
            text: the token ids of the prompt and of the plain reply to it.
        """
        self._text = text

    def following(self, past: Sequence[int]) -> Sequence[int]:
        """Return the tokens that follow others in the known text; none if it begins otherwise.

        Args:
            past: all tokens of the prompt, and those of the reply so far.
        """
        return self._text[len(past) :] if self._text[: len(past)] == past else []

    def guess(self, token: int) -> int:
        """Return what is drafted in place of a token of the known text."""
        return token

    @override
    def propose(self, context: Context) -> TokenTree:
        known = self.following([*context.tokens, context.root])
        length = min(self.gamma, context.max_depth)
        return TokenTree.chain(context.root, [self.guess(token) for token in known[:length]])

    @override
    def describe(self) -> str:
        return f"the plain reply, gamma {self.gamma}"


@dataclass(frozen=True)
class SimulatedOptions(Options):
    """How often the drafter is right, and how much it drafts."""

    acceptance: float = option(0.8, "chance that a drafted token is right, given the one before")
    gamma: int = option(4, "tokens drafted in every step")

    def __post_init__(self) -> None:
        if not 0 <= self.acceptance <= 1 or self.gamma < 1:
            raise UsageError(
                f"an acceptance is 0 to 1, a gamma above 0: {self.acceptance}, {self.gamma}"
            )


class SimulatedDrafter(ReplayDrafter):
    """Drafts chains whose tokens are right with a given chance, each given the one before.

    Args:
        acceptance: that chance.
        gamma: tokens of a chain.
        vocabulary_size: of the target.
        seed: of the mistakes.
    """

    summary = "the plain reply, with mistakes at a given rate"
    options = SimulatedOptions

    def __init__(self, acceptance: float, gamma: int, vocabulary_size: int, seed: int = 0) -> None:
        super().__init__(gamma)
        self.acceptance = acceptance
        self.vocabulary_size = vocabulary_size
        self._random = random.Random(seed)

    @override
    @classmethod
    def build(cls, inputs: DrafterInputs, options: SimulatedOptions) -> SimulatedDrafter:
        return cls(options.acceptance, options.gamma, inputs.model.target.vocabulary_size)

    @override
    def guess(self, token: int) -> int:
        right = self._random.random() < self.acceptance
        return token if right else (token + 1) % self.vocabulary_size

    @override
    def describe(self) -> str:
        return f"right with a chance of {self.acceptance:g}, gamma {self.gamma}"


@dataclass
class ForcedRule(Rule):
    """Does the work of another rule, then accepts and emits the tokens of the known text.

    Args:
        rule: the other rule.
        drafter: that knows the text.
    """

    rule: Rule
    drafter: SimulatedDrafter
    name: ClassVar[str] = "forced"

    @override
    def judge(self, tree: TokenTree, logits: Tensor, past: Sequence[int]) -> Judgement:
        judged = self.rule.judge(tree, logits, past).target_tokens
        known_tokens: dict[int, int] = {}
        following = self.drafter.following([*past, tree.tokens[0]])
        accepted = [True] + [False] * (len(tree) - 1)
        for node, known in enumerate(following[: len(tree)]):  # of a chain
            _ = judged[node]  # drawn, as after every accepted node
            known_tokens[node] = known
            if node + 1 == len(tree) or tree.tokens[node + 1] != known:
                break
            accepted[node + 1] = True

        def token_after(node: int) -> int:
            return known_tokens[node] if node in known_tokens else judged[node]

        return Judgement(accepted, TargetTokens(token_after, range(len(tree))))

    @override
    def draw(self, logits: Tensor, past: Sequence[int], count: int = 1) -> Draw:
        return self.rule.draw(logits, past, count)


@dataclass(frozen=True)
class ForcedSettings(Settings):
    """Settings whose replies are forced to be the known ones.

    Args:
        drafter: that knows them.
    """

    drafter: SimulatedDrafter | None = None

    @classmethod
    def of(cls, settings: Settings, drafter: SimulatedDrafter) -> ForcedSettings:
        """Return settings that differ from others in their rule alone."""
        values = {field.name: getattr(settings, field.name) for field in fields(Settings)}
        return cls(**values, drafter=drafter)

    @override
    def rule(self, number: int) -> Rule:
        rule = super().rule(number)
        return ForcedRule(rule, self.drafter) if self.drafter else rule
