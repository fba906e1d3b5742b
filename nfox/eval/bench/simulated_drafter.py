"""A drafter that knows the reply and is wrong on purpose: what the engine makes of an acceptance
rate, whatever the model, even one with random weights.

Its replies are the known ones by decree: where rounded logits of a wide forward turn a near-tie,
the text would be another one, of which it knows nothing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from nfox.decoding.drafter import Context
from nfox.decoding.tree import TokenTree
from nfox.decoding.verify import Draw, Judgement, Rule
from nfox.drafters.common.method import DrafterInputs, Method, Options, option
from nfox.errors import UsageError
from nfox.reply import Settings


@dataclass(frozen=True)
class OracleOptions(Options):
    """How often it is right, and how much it drafts."""

    acceptance: float = option(0.8, "chance that a drafted token is right, given the one before")
    gamma: int = option(4, "tokens drafted in every step")

    def __post_init__(self) -> None:
        if not 0 <= self.acceptance <= 1 or self.gamma < 1:
            raise UsageError(
                f"an acceptance is 0 to 1, a gamma above 0: {self.acceptance}, {self.gamma}"
            )


class Oracle(Method):
    """Drafts chains whose tokens are right with a given chance, each given the one before.

    Args:
        acceptance: that chance.
        gamma: tokens of a chain.
        vocabulary: of the target.
        seed: of the mistakes.
    """

    summary = "the plain reply, with mistakes at a given rate"
    options = OracleOptions

    def __init__(self, acceptance: float, gamma: int, vocabulary: int, seed: int = 0) -> None:
        self.acceptance = acceptance
        self.gamma = gamma
        self.vocabulary_size = vocabulary
        self._dice = random.Random(seed)
        self._text: list[int] = []

    @override
    @classmethod
    def build(cls, inputs: DrafterInputs, options: OracleOptions) -> Oracle:
        """What it is to say is told by `know`."""
        return cls(options.acceptance, options.gamma, inputs.model.target.vocabulary_size)

    def know(self, text: list[int]) -> None:
        """Learn the reply to come.

        Args:
            text: tokens of the prompt and the plain reply.
        """
        self._text = text

    def after(self, begun: Sequence[int]) -> Sequence[int]:
        """Return what follows in the reply; nothing where the text is not the known one."""
        return self._text[len(begun) :] if self._text[: len(begun)] == begun else []

    @override
    def propose(self, context: Context) -> TokenTree:
        following = self.after([*context.tokens, context.root])
        drafted = []
        for token in following[: min(self.gamma, context.max_depth)]:
            right = self._dice.random() < self.acceptance
            drafted.append(token if right else (token + 1) % self.vocabulary_size)
        return TokenTree.chain(context.root, drafted)

    @override
    def describe(self) -> str:
        return f"right with a chance of {self.acceptance:g}, gamma {self.gamma}"


@dataclass
class Decreed(Rule):
    """The rule that it stands for, whose work it does, and then the known text's own tokens.

    Args:
        rule: that it stands for.
        oracle: who knows the text.
    """

    rule: Rule
    oracle: Oracle
    name: ClassVar[str] = "decreed"

    @override
    def judge(self, tree: TokenTree, logits: Tensor, past: Sequence[int]) -> Judgement:
        target_tokens = list(self.rule.judge(tree, logits, past).target_tokens)
        following = self.oracle.after([*past, tree.tokens[0]])
        accepted = [True] + [False] * (len(tree) - 1)
        for node, known in enumerate(following[: len(tree)]):  # of a chain
            target_tokens[node] = known
            if node + 1 == len(tree) or tree.tokens[node + 1] != known:
                break
            accepted[node + 1] = True
        return Judgement(accepted, target_tokens)

    @override
    def draw(self, logits: Tensor, past: Sequence[int], count: int = 1) -> Draw:
        return self.rule.draw(logits, past, count)


@dataclass(frozen=True)
class DecreedSettings(Settings):
    """Settings whose replies are known.

    Args:
        oracle: who knows them.
    """

    oracle: Oracle | None = None

    @classmethod
    def of(cls, settings: Settings, oracle: Oracle) -> DecreedSettings:
        """Return settings with their replies known."""
        own = {one.name: getattr(settings, one.name) for one in fields(Settings)}
        return cls(**own, oracle=oracle)

    @override
    def rule(self, reply: int) -> Rule:
        made = super().rule(reply)
        return Decreed(made, self.oracle) if self.oracle else made
