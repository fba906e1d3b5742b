"""What Jacobi iterations give on a model's own answers, in fixed blocks, as it was published.

The definitions are those of Kou et al. 2024 (CLLM, arXiv 2403.00835); what stands behind the token
that ends an answer counts nowhere.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from nfox.decoding.generate import Limits, Prompt
from nfox.errors import NfoxError
from nfox.models.transformers_target import TransformersTarget
from nfox.train.cllm.blocks import Block, blocks
from nfox.train.cllm.trajectories import repeats


@dataclass(frozen=True)
class Iterations:
    """What was measured on so many requests.

    Args:
        requests: answers that count.
        repetitive: answers that do not, since they repeat one token, where all is easy to guess.
        tokens: of all answers.
        blocks: of all answers.
        tokens_per_iteration: an iteration is a forward of the target over what is left of a block.
        iterations_per_block: forwards, the one included that finds nothing to change any more.
        converge_steps: iterations until a block's state is the fixed point, averaged over blocks.
        fast_forwarded: by how many tokens an iteration makes the right prefix longer, averaged
            over the iterations of a block up to the fixed point, then over blocks.
        stationary_per_block: tokens that were right before the right prefix came to them, and
            stayed so.
        stationary_per_request: the same in a whole answer.
    """

    requests: int
    repetitive: int
    tokens: int
    blocks: int
    tokens_per_iteration: float
    iterations_per_block: float
    converge_steps: float
    fast_forwarded: float
    stationary_per_block: float
    stationary_per_request: float


def answer(
    target: TransformersTarget,
    prompt: Prompt,
    n: int,
    limits: Limits,
    *,
    seed: int = 0,
) -> list[Block]:
    """Return the blocks of an answer, the last one cut behind the token that ends it.

    Args:
        target: the model, one that scores several tokens at once.
        prompt: what is decoded on from.
        n: the number of tokens of a block.
        limits: the most tokens and positions, and the tokens that end the answer.
        seed: of the random tokens that blocks begin with.
    """
    *whole, last = blocks(target, prompt, n, limits, seed=seed)
    ends = (count for count, token in enumerate(last.tokens, 1) if token in limits.stop_ids)
    return [*whole, last.cut(next(ends, len(last.tokens)))]


def summarise(answers: Sequence[Sequence[Block]], stop_ids: Collection[int]) -> Iterations:
    """Put the numbers of several answers together.

    Args:
        answers: the blocks of each.
        stop_ids: what ends one.

    Raises:
        NfoxError: if none counts.
    """
    kept = [
        answer
        for answer in answers
        if not repeats([token for block in answer for token in block.tokens], stop_ids)
    ]
    if not kept:
        raise NfoxError(
            f"nothing to measure: all of {len(answers)} answers repeat one token 10 times in a row",
            "name another model or other --data",
        )
    found = [block for answer in kept for block in answer]
    tokens = sum(len(block.tokens) for block in found)
    forwards = sum(len(block.decided) for block in found)
    stationary = sum(block.stationary() for block in found)
    gains = [block.fast_forwarded() for block in found]
    return Iterations(
        requests=len(kept),
        repetitive=len(answers) - len(kept),
        tokens=tokens,
        blocks=len(found),
        tokens_per_iteration=tokens / forwards,
        iterations_per_block=forwards / len(found),
        converge_steps=sum(len(block.states) - 1 for block in found) / len(found),
        fast_forwarded=sum(sum(gain) / len(gain) for gain in gains) / len(found),
        stationary_per_block=stationary / len(found),
        stationary_per_request=stationary / len(kept),
    )
