"""Jacobi decoding in blocks of n tokens, with every state on the way: what a CLLM learns from, and
what Jacobi decoding is measured by.

The loop is that of every method. Only the guesses differ from the method's own, whose window slides
past what is accepted: here they fill one block until it stands. A state is what is decided of the
block, and the target's choices behind it: exactly what reading the whole text again would make of
the state before, since what is decided does not change.

Santilli et al. 2023 (arXiv 2305.10427); Kou et al. 2024 (CLLM, arXiv 2403.00835).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from typing_extensions import override

from nfox.decoding.cache import KVCache, common_prefix
from nfox.decoding.drafter import Context
from nfox.decoding.generate import Limits, Prompt, Step, generate
from nfox.decoding.rules import make_rule
from nfox.decoding.tree import TokenTree
from nfox.drafters.jacobi import Jacobi
from nfox.errors import ModelError
from nfox.models.transformers_target import TransformersTarget

State = tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """A stretch of the greedy text, and how it was found.

    Args:
        states: [K + 1][n] tokens: random ones of the text before, then what each iteration made of
            them; the last is the fixed point, which is the target's own greedy text.
        decided: how many of its tokens were known to be right after each forward. That is K of
            them, or K + 1 where the last one only found that nothing changes any more.
    """

    states: tuple[State, ...]
    decided: tuple[int, ...]

    @property
    def tokens(self) -> State:
        """The fixed point."""
        return self.states[-1]

    def cut(self, length: int) -> Block:
        """Return the block of its first `length` tokens, as if it had ended there."""
        states = tuple(state[:length] for state in self.states)
        needed = sum(count < length for count in self.decided) + 1
        decided = tuple(min(count, length) for count in self.decided[:needed])
        return Block(_until_fixed(states), decided)

    def fast_forwarded(self) -> list[int]:
        """Return by how many tokens each iteration made the right prefix longer.

        The first counts from nothing. Where the random state was right already, which no iteration
        could improve, one iteration has found all.
        """
        prefixes = [common_prefix(state, self.tokens) for state in self.states[1:] or self.states]
        return [after - before for before, after in pairwise([0, *prefixes])]

    def stationary(self) -> int:
        """Return how many tokens were right before the right prefix came to them, and stayed so."""
        later = self.states[1:]
        prefixes = [common_prefix(state, self.tokens) for state in later]
        count = 0
        for place, token in enumerate(self.tokens):
            right = [state[place] == token for state in later]
            reached = sum(prefix <= place for prefix in prefixes)  # it never becomes shorter
            count += reached > 0 and all(right[reached - 1 :])
        return count


def blocks(
    target: TransformersTarget,
    prompt: Prompt,
    n: int,
    limits: Limits,
    *,
    seed: int = 0,
    cache: KVCache | None = None,
) -> Iterator[Block]:
    """Decode greedily, block after block.

    Args:
        target: the model, one that scores several tokens at once.
        prompt: what is decoded on from.
        n: the number of tokens of a block; the last one is shorter where the limits end it.
        limits: the most tokens of all blocks together, the most positions, and the tokens after
            which no block is begun; the block that they are in becomes whole.
        seed: of the random tokens that blocks begin with.
        cache: what the target has read; a new one by default.

    Raises:
        ModelError: if the target keeps a state that cannot be rolled back.
        NfoxError: see `nfox.decoding.generate.generate`.
    """
    if target.proposals == "nothing":
        raise ModelError(
            "Jacobi decoding takes back what was wrong, which this model's recurrent state cannot",
            "use a model with attention in all layers",
        )
    drafter = _Filling(n, seed)
    steps = generate(
        target,
        drafter,
        prompt,
        cache=cache or target.new_cache(),
        rule=make_rule(),
        limits=replace(limits, stop_ids=frozenset()),
    )
    for block in _gathered(steps, drafter):
        yield block
        if not set(block.tokens).isdisjoint(limits.stop_ids):
            return


def _gathered(steps: Iterator[Step], drafter: _Filling) -> Iterator[Block]:
    """Yield a block whenever nothing is left of it."""
    tokens: list[int] = []
    states: list[State] = []
    decided: list[int] = []
    for step in steps:
        tokens += step.tokens
        guesses = step.verdict.target_tokens[len(step.verdict.path) :]
        states = [*(states or [drafter.opening]), (*tokens, *guesses)]
        decided.append(len(tokens))
        if not guesses:
            yield Block(_until_fixed(tuple(states)), tuple(decided))
            tokens, states, decided = [], [], []


def _until_fixed(states: tuple[State, ...]) -> tuple[State, ...]:
    """Leave out what repeats the fixed point."""
    return states[: states.index(states[-1]) + 1]


class _Filling(Jacobi):
    """Guesses what is left of a block, and begins the next one only when nothing is.

    Args:
        size: tokens of a block.
        seed: of the random tokens.

    Attributes:
        opening: the first state of the block.
    """

    def __init__(self, size: int, seed: int) -> None:
        super().__init__(size)
        self._seed = seed
        self._numbers = random.Random(seed)
        self.opening: State = ()

    @override
    def propose(self, context: Context) -> TokenTree:
        state = context.target_tokens[len(context.path) :]
        if not state:
            pool = [*context.tokens, context.root]
            state = self._numbers.choices(pool, k=min(self.window, context.max_depth + 1))
            self.opening = tuple(state)
        # Reading a token tells the one after it, so the block's last guess need not be read.
        return TokenTree.chain(context.root, state[:-1])

    @override
    def rewind(self, length: int) -> None:
        self._numbers.seed(self._seed)
