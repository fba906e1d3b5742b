"""Jacobi decoding in blocks of n tokens with the state after every iteration, from which a CLLM
learns, and by which Jacobi decoding is measured.

The loop is that of every method. Only the drafts differ from those of the method `jacobi`, whose
window slides past the accepted tokens: here they fill one block until it is decided. A state is the
decided tokens of the block, and the target's tokens behind these. Computing the whole text again
would give the same states, since decided tokens do not change.

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
    """A block of the target's greedy text, and the states of the Jacobi iteration that found it.

    Args:
        states: [K + 1][n] token ids: random ones of the text before, then the state after each
            iteration; the last is the fixed point, which is the target's own greedy text.
        decided: the number of tokens that were known to be correct after each forward pass. There
            are K passes, or K + 1 where the last one only found that nothing changes any more.
    """

    states: tuple[State, ...]
    decided: tuple[int, ...]

    @property
    def tokens(self) -> State:
        """The token ids of the fixed point."""
        return self.states[-1]

    def cut(self, length: int) -> Block:
        """Return the block as it would be if it had only its first `length` tokens."""
        states = tuple(state[:length] for state in self.states)
        needed = sum(count < length for count in self.decided) + 1
        decided = tuple(min(count, length) for count in self.decided[:needed])
        return Block(_until_fixed(states), decided)

    def fast_forwarded(self) -> list[int]:
        """Return the number of tokens by which each iteration made the correct prefix longer.

        The first iteration starts from no correct token. Where the random state was the fixed point
        already, all tokens count as found by one iteration.
        """
        prefixes = [common_prefix(state, self.tokens) for state in self.states[1:] or self.states]
        return [after - before for before, after in pairwise([0, *prefixes])]

    def stationary(self) -> int:
        """Return the number of tokens that were correct before the correct prefix reached them, and
        stayed so.
        """
        later = self.states[1:]
        prefixes = [common_prefix(state, self.tokens) for state in later]
        count = 0
        for position, token in enumerate(self.tokens):
            correct = [state[position] == token for state in later]
            reached = sum(prefix <= position for prefix in prefixes)  # prefixes never get shorter
            count += reached > 0 and all(correct[reached - 1 :])
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
    """Decode greedily in blocks of n tokens, and yield each block with its Jacobi states.

    Args:
        target: the model, one that scores several tokens at once.
        prompt: the token ids that are continued.
        n: the number of tokens of a block; the last one is shorter where the limits end it.
        limits: the maximum number of tokens of all blocks and of positions, and the stop tokens,
            after which no block is begun; the block of a stop token becomes whole.
        seed: the seed of the random tokens that blocks begin with.
        cache: the target's KV cache; a new one by default.

    Raises:
        ModelError: if the target keeps a state that cannot be rolled back.
        NfoxError: see `nfox.decoding.generate.generate`.
    """
    if target.proposals == "nothing":
        raise ModelError(
            "Jacobi decoding takes back what was wrong, which this model's recurrent state cannot",
            "use a model with attention in all layers",
        )
    drafter, cache = _BlockDrafter(n, seed), cache or target.new_cache()
    unstopped = replace(limits, stop_ids=frozenset())
    steps = generate(target, drafter, prompt, cache=cache, rule=make_rule(), limits=unstopped)
    for block in _blocks_of_steps(steps, drafter):
        yield block
        if not set(block.tokens).isdisjoint(limits.stop_ids):
            return


def _blocks_of_steps(steps: Iterator[Step], drafter: _BlockDrafter) -> Iterator[Block]:
    """Yield each block when all its tokens are decided."""
    tokens: list[int] = []
    states: list[State] = []
    decided: list[int] = []
    for step in steps:
        tokens += step.tokens
        guesses = step.verdict.target_tokens[len(step.verdict.path) :]
        states = [*(states or [drafter.random_state]), (*tokens, *guesses)]
        decided.append(len(tokens))
        if not guesses:
            yield Block(_until_fixed(tuple(states)), tuple(decided))
            tokens, states, decided = [], [], []


def _until_fixed(states: tuple[State, ...]) -> tuple[State, ...]:
    """Return the states up to the first one that is the fixed point."""
    return states[: states.index(states[-1]) + 1]


class _BlockDrafter(Jacobi):
    """Drafts the undecided tokens of a block, and those of the next block once there are none.

    Args:
        size: the number of tokens of a block.
        seed: the seed of the random tokens that blocks begin with.

    Attributes:
        random_state: the random tokens that the current block began with.
    """

    def __init__(self, size: int, seed: int) -> None:
        super().__init__(size)
        self._seed = seed
        self._numbers = random.Random(seed)
        self.random_state: State = ()

    @override
    def propose(self, context: Context) -> TokenTree:
        state = context.target_tokens[len(context.path) :]
        if not state:
            pool = [*context.tokens, context.root]
            state = self._numbers.choices(pool, k=min(self.window, context.max_depth + 1))
            self.random_state = tuple(state)
        # A token's forward pass predicts the next one, so the block's last token needs none.
        return TokenTree.chain(context.root, state[:-1])

    @override
    def rewind(self, length: int) -> None:
        self._numbers.seed(self._seed)
