"""Whichever turns are left out: the newest is read, what is read fits, and it stays for a while."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from nfox import Message
from nfox.decoding.generate import Prompt
from nfox.text.turns import fitting, longest_prompt, turns_in

SYSTEM = 3  # tokens of the system message, which every prompt has


def encoder(messages: list[Message]) -> Callable[[int], Prompt]:
    """Return what encodes a conversation in which a character is a token."""
    return lambda first: Prompt((0,) * (SYSTEM + sum(len(m.content) for m in messages[first:])))


def conversation(*lengths: int) -> list[Message]:
    return [Message(("user", "assistant")[i % 2], "x" * n) for i, n in enumerate(lengths)]


def length_of(messages: list[Message], first: int) -> int:
    return len(encoder(messages)(first).ids)


@pytest.mark.parametrize("seed", range(50))
def test_as_many_turns_are_read_as_take_half_of_the_room(seed: int) -> None:
    draw = random.Random(seed)
    messages = conversation(*(draw.randint(1, 20) for _ in range(2 * draw.randint(1, 9) + 1)))
    limit = draw.randint(10, 150)
    prompt, first = fitting(messages, encoder(messages), limit=limit)
    assert prompt == encoder(messages)(first)
    assert messages[first].role == "user"
    if length_of(messages, 0) <= limit:
        assert first == 0
        return
    newest = length_of(messages, len(messages) - 1)
    if newest > limit:  # nothing more can be left out
        assert first == len(messages) - 1
        return
    enough = newest + (limit - newest) // 2
    by_hand = [i for i in range(2, len(messages), 2) if length_of(messages, i) <= enough]
    previous = len(messages) - 3
    if by_hand[0] > previous > 0 and length_of(messages, previous) <= limit:
        by_hand = [previous]  # which the question is most often about
    assert first == by_hand[0]


def test_a_conversation_is_seldom_read_anew_and_never_longer_than_it_may_be() -> None:
    draw, limit = random.Random(1), 200
    messages: list[Message] = []
    unread: list[Message] = []
    begins, read = [], 0
    for _ in range(300):
        messages += conversation(draw.randint(1, 20))
        prompt, first = fitting(messages, encoder(messages), unread, limit)
        assert len(prompt.ids) <= limit
        read += len(prompt.ids) if first != len(unread) else len(messages[-1].content)
        begins.append(first)
        unread = messages[:first]
        messages += [Message("assistant", "y" * draw.randint(1, 20))]
    assert begins == sorted(begins) and len(set(begins)) < len(begins) / 3
    assert read < 2 * length_of(messages, 0)


def test_what_was_left_out_stays_so_while_it_is_the_same() -> None:
    messages = conversation(5, 5, 5, 5, 5)
    encode = encoder(messages)
    assert fitting(messages, encode, messages[:2], 99)[1] == 2
    assert fitting(messages, encode, messages[:2])[1] == 2
    assert fitting(messages, encode, messages[:3], 99)[1] == 0  # a reply begins no turn
    assert fitting(messages, encode, messages, 99)[1] == 0
    assert fitting(messages, encode, conversation(6, 5), 99)[1] == 0


def test_without_a_limit_everything_is_read() -> None:
    messages = conversation(*[50] * 9)
    assert fitting(messages, encoder(messages))[1] == 0


def test_a_reply_is_left_room_for_but_never_the_whole_context() -> None:
    assert longest_prompt(4096, 512) == 3584
    assert longest_prompt(200, 512) == 160
    assert longest_prompt(200, 1) == 199


def test_a_question_and_what_follows_it_are_one_turn() -> None:
    assert turns_in([]) == 0
    assert turns_in([Message("assistant", "hello"), *conversation(1, 1, 1)]) == 2
