"""Jacobi decoding in blocks: every state is the slow iteration's, the last one is greedy text."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

import pytest
import tiny
import torch
from tiny import PROMPT

from nfox.decoding.cache import common_prefix
from nfox.decoding.generate import Limits, Prompt
from nfox.errors import ModelError
from nfox.train.cllm.blocks import Block, State, blocks
from nfox.train.cllm.statistics import decode_answer, summarise

FAMILIES = ["llama", "mistral", "qwen2-mixed", "gemma2", "gpt2", "bloom"]
PROMPTS = [(7,), PROMPT, (PROMPT * 4)[:37]]


@cache
def after(name: str, text: tuple[int, ...]) -> list[int]:
    """The likeliest token after every token of a text, read as a whole."""
    with torch.inference_mode():
        logits = tiny.target(name).model(input_ids=torch.tensor([text]), use_cache=False).logits
    found: list[int] = logits[0].argmax(-1).tolist()
    return found


def slowly(name: str, prompt: Sequence[int], opening: State) -> list[State]:
    """The states of a block from its first one, as the published program makes them."""
    states = [opening]
    while True:
        choices = after(name, (*prompt, *states[-1]))
        states.append(tuple(choices[len(prompt) - 1 : -1]))
        if states[-1] == states[-2]:
            return states[:-1]


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 4, 16])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_state_is_that_of_the_slow_iteration(name: str, n: int) -> None:
    for prompt in PROMPTS:
        text = list(prompt)
        for block in blocks(
            tiny.target(name), Prompt(tuple(prompt)), n, Limits(12), seed=len(prompt)
        ):
            assert set(block.states[0]) <= set(text)
            assert list(block.states) == slowly(name, text, block.states[0])
            text += block.tokens
        assert text[len(prompt) :] == tiny.slow(name, prompt, 12)


def test_an_encoder_decoder_model_too() -> None:
    found = blocks(tiny.target("t5"), Prompt((0,), tuple(PROMPT)), 5, Limits(20))
    assert [token for block in found for token in block.tokens] == tiny.slow("t5", (0,), 20, PROMPT)


def test_a_state_that_cannot_be_rolled_back_is_refused() -> None:
    with pytest.raises(ModelError, match="recurrent state"):
        next(blocks(tiny.target("mamba"), Prompt(tuple(PROMPT)), 4, Limits(8)))


@pytest.mark.parametrize("n", [1, 4, 16])
def test_a_block_costs_a_forward_for_every_change_and_at_most_n(n: int) -> None:
    for block in blocks(tiny.target(), Prompt(tuple(PROMPT)), n, Limits(32)):
        changes = len(block.states) - 1
        assert changes <= len(block.decided) <= min(changes + 1, n)
        assert list(block.decided) == sorted(set(block.decided))
        assert block.decided[-1] == n


@pytest.mark.parametrize(("limit", "lengths"), [(10, [4, 4, 2]), (3, [3]), (8, [4, 4])])
def test_the_last_block_is_no_longer_than_the_limit(limit: int, lengths: list[int]) -> None:
    found = list(blocks(tiny.target(), Prompt(tuple(PROMPT)), 4, Limits(limit)))
    assert [len(block.tokens) for block in found] == lengths
    assert all(len(state) == len(block.tokens) for block in found for state in block.states)
    full = blocks(
        tiny.target(), Prompt(tuple(PROMPT)), 4, Limits(99, max_context=len(PROMPT) + limit - 1)
    )
    assert [len(block.tokens) for block in full] == lengths, "the last token is not read"


def test_no_block_is_begun_after_the_end() -> None:
    said = tiny.slow("llama", PROMPT, 24)
    end = said[6]
    found = list(
        blocks(tiny.target(), Prompt(tuple(PROMPT)), 4, Limits(24, stop_ids=frozenset([end])))
    )
    place = said.index(end)
    assert len(found) == place // 4 + 1
    assert [token for block in found for token in block.tokens] == said[: 4 * len(found)]
    shown = decode_answer(
        tiny.target(), Prompt(tuple(PROMPT)), 4, Limits(24, stop_ids=frozenset([end]))
    )
    assert [token for block in shown for token in block.tokens] == said[: place + 1]


def test_an_end_in_the_prompt_ends_nothing() -> None:
    said = tiny.slow("llama", PROMPT, 24)
    other = next(token for token in PROMPT if token not in said)
    assert (
        len(
            list(
                blocks(
                    tiny.target(), Prompt(tuple(PROMPT)), 4, Limits(24, stop_ids=frozenset([other]))
                )
            )
        )
        == 6
    )


def test_a_seed_gives_the_same_states() -> None:
    def found(seed: int) -> list[Block]:
        return list(blocks(tiny.target(), Prompt(tuple(PROMPT)), 4, Limits(12), seed=seed))

    assert found(1) == found(1)
    assert found(1) != found(2)


def test_a_cut_block_is_what_a_shorter_one_would_have_been() -> None:
    name = "llama"
    for block in blocks(tiny.target(name), Prompt(tuple(PROMPT)), 9, Limits(9), seed=4):
        for length in range(1, 10):
            cut = block.cut(length)
            assert list(cut.states) == slowly(name, PROMPT, block.states[0][:length])
            assert cut.decided[-1] == length
            assert len(cut.states) - 1 <= len(cut.decided) <= len(cut.states)
        assert block.cut(9) == block


# The random state has the third token right, which does not count. The fourth is right from the
# first iteration on, two before the prefix comes to it; the fifth not in all after the first.
BY_HAND = Block(
    ((9, 9, 3, 9, 9), (1, 9, 3, 4, 5), (1, 2, 9, 4, 9), (1, 2, 3, 4, 9), (1, 2, 3, 4, 5)),
    (1, 2, 4, 5),
)


def test_what_iterations_gave_is_what_a_hand_counts() -> None:
    assert BY_HAND.fast_forwarded() == [1, 1, 2, 1]
    assert BY_HAND.stationary() == 1
    at_once = Block(((9, 9, 9), (1, 2, 3)), (1, 3))
    assert (at_once.fast_forwarded(), at_once.stationary()) == ([3], 0)
    lucky = Block(((1, 2, 3),), (3,))
    assert (lucky.fast_forwarded(), lucky.stationary()) == ([3], 0)
    # The fourth was right by chance, wrong once, and early at last.
    late = Block(((9, 9, 9, 4), (1, 9, 9, 9), (1, 2, 9, 4), (1, 2, 3, 4)), (1, 2, 4))
    assert (late.fast_forwarded(), late.stationary()) == ([1, 1, 2], 1)


def test_stationary_tokens_by_the_published_count() -> None:
    """A streak of right tokens up to the end, longer than the prefix alone accounts for."""
    numbers = random.Random(0)
    for _ in range(300):
        final = tuple(numbers.choices(range(3), k=6))
        states = [tuple(numbers.choices(range(3), k=6)) for _ in range(5)]
        for at in range(1, 5):  # a prefix once right stays so, and grows
            known = common_prefix(states[at - 1], final) + 1
            states[at] = final[:known] + states[at][known:]
        states.append(final)
        states = states[: states.index(final) + 1]
        count = 0
        for place in range(6) if len(states) > 1 else ():
            streak = reach = 0
            for state in reversed(states[1:]):
                if state[place] != final[place]:
                    break
                streak += 1
            for state in reversed(states[1:]):
                if state[: place + 1] != final[: place + 1]:
                    break
                reach += 1
            count += streak > reach
        assert Block(tuple(states), (6,)).stationary() == count


def test_the_summary_is_of_blocks_and_of_answers() -> None:
    at_once = Block(((9, 9, 9), (1, 2, 3)), (1, 3))
    found = summarise([[BY_HAND, at_once], [at_once]], [])
    assert (found.requests, found.repetitive, found.tokens, found.blocks) == (2, 0, 11, 3)
    assert found.tokens_per_iteration == pytest.approx(11 / 8)
    assert found.iterations_per_block == pytest.approx(8 / 3)
    assert found.converge_steps == pytest.approx(6 / 3)
    assert found.fast_forwarded == pytest.approx((5 / 4 + 3 + 3) / 3)
    assert found.stationary_per_block == pytest.approx(1 / 3)
    assert found.stationary_per_request == pytest.approx(1 / 2)
    dull = Block(((1,) * 12,), (12,))
    assert summarise([[at_once], [dull]], []).repetitive == 1
    assert summarise([[dull]], [1]).requests == 1, "what follows the end does not count"
