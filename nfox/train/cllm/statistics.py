"""Statistics of Jacobi decoding in fixed blocks on a model's own answers, as they were published.

The definitions are those of Kou et al. 2024 (CLLM, arXiv 2403.00835); tokens behind the stop token
of an answer are not counted.
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
class JacobiStatistics:
    """Statistics of Jacobi decoding over several answers.

    Args:
        requests: the number of answers that are counted.
        repetitive: the number of answers that are not, since they repeat one token, which is easy
            to guess.
        tokens: the number of tokens of all answers.
        blocks: the number of blocks of all answers.
        tokens_per_iteration: the tokens per iteration, which is a forward pass of the target over
            the undecided rest of a block.
        iterations_per_block: the iterations per block, with the one that finds that nothing changes
            any more.
        converge_steps: the iterations until a block's state is the fixed point, averaged over
            blocks.
        fast_forwarded: the number of tokens by which an iteration makes the correct prefix longer,
            averaged over the iterations of a block up to the fixed point, then over blocks.
        stationary_per_block: the number of tokens that were correct before the correct prefix
            reached them, and stayed so.
        stationary_per_request: the same number for a whole answer.
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


def decode_answer(
    target: TransformersTarget,
    prompt: Prompt,
    n: int,
    limits: Limits,
    *,
    seed: int = 0,
) -> list[Block]:
    """Return the blocks of an answer, the last one cut behind its stop token.

    Args:
        target: the model, one that scores several tokens at once.
        prompt: the token ids that the answer continues.
        n: the number of tokens of a block.
        limits: the maximum number of tokens and positions, and the tokens that end the answer.
        seed: the seed of the random tokens that blocks begin with.
    """
    *complete, last = blocks(target, prompt, n, limits, seed=seed)
    ends = (count for count, token in enumerate(last.tokens, 1) if token in limits.stop_ids)
    return [*complete, last.cut(next(ends, len(last.tokens)))]


def summarise(answers: Sequence[Sequence[Block]], stop_ids: Collection[int]) -> JacobiStatistics:
    """Return the statistics of several answers.

    Args:
        answers: the blocks of each answer.
        stop_ids: the tokens that end an answer.

    Raises:
        NfoxError: if all answers repeat one token.
    """
    counted = [
        answer
        for answer in answers
        if not repeats([token for block in answer for token in block.tokens], stop_ids)
    ]
    if not counted:
        raise NfoxError(
            f"nothing to measure: all of {len(answers)} answers repeat one token 10 times in a row",
            "name another model or other --data",
        )
    all_blocks = [block for answer in counted for block in answer]
    tokens = sum(len(block.tokens) for block in all_blocks)
    forwards = sum(len(block.decided) for block in all_blocks)
    stationary = sum(block.stationary() for block in all_blocks)
    gains = [block.fast_forwarded() for block in all_blocks]
    return JacobiStatistics(
        requests=len(counted),
        repetitive=len(answers) - len(counted),
        tokens=tokens,
        blocks=len(all_blocks),
        tokens_per_iteration=tokens / forwards,
        iterations_per_block=forwards / len(all_blocks),
        converge_steps=sum(len(block.states) - 1 for block in all_blocks) / len(all_blocks),
        fast_forwarded=sum(sum(gain) / len(gain) for gain in gains) / len(all_blocks),
        stationary_per_block=stationary / len(all_blocks),
        stationary_per_request=stationary / len(counted),
    )
