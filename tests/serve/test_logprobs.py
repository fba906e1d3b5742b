"""Log-probabilities are told token by token, and their tokens spell the reply."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from spelling import KINDS, decode, encode, make

from nfox.decoding.generate import Step
from nfox.reply import Reply
from nfox.serve.logprobs import SpelledLogprobs


def step(tokens: list[int], vocabulary: int) -> Step:
    """Return what the loop gives for accepted tokens, each of which was the likeliest."""
    logits = torch.zeros(len(tokens), vocabulary)
    logits[range(len(tokens)), tokens] = 5.0
    verdict: Any = SimpleNamespace(path=list(range(len(tokens))))
    missing: Any = None
    return Step(tuple(tokens), (), missing, verdict, missing, logits=logits)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokens_of_any_reply_spell_it(kind: str) -> None:
    """Whatever its tokens are, also halves of characters, and wherever steps and the text end."""
    tokenizer, numbers = make(kind), random.Random(4)
    for _ in range(60):
        ids = numbers.choices(range(len(tokenizer)), k=numbers.randint(1, 12))
        if numbers.random() < 0.6:
            ids += encode(kind, numbers.choice((" 😀 ha", "the ünï", "日本 語")))
        begun = encode(kind, "before") if numbers.random() < 0.5 else []
        said = decode(kind, [*begun, *ids])[len(decode(kind, begun)) :]
        said = said if begun else said.removeprefix(" ")
        cut = numbers.choice((len(said), numbers.randint(0, len(said))))
        logprobs, rest, told = SpelledLogprobs(tokenizer, begun, 1), list(ids), []
        while rest:
            size = numbers.randint(1, 4)
            logprobs.add(step(rest[:size], len(tokenizer)), size)
            rest = rest[size:]
            told += logprobs.certain(min(cut, numbers.randint(0, len(said))))
        told += logprobs.finish(Reply("none", ids if cut == len(said) else [], said[:cut]))
        assert told == logprobs.told
        assert "".join(logprob.text for logprob in told) == said[:cut]
        assert [logprob.token for logprob in told] == ids[: len(told)]
        assert cut < len(said) or len(told) == len(ids)
        assert all(logprob.top[0].text == logprob.text for logprob in told)


def test_a_character_of_several_tokens_belongs_to_the_last() -> None:
    ids = encode("metaspace", "a 😀 b")
    logprobs = SpelledLogprobs(make("metaspace"), (), 0)
    logprobs.add(step(ids, len(make("metaspace"))), len(ids))
    logprobs.finish(Reply("none", ids, "a 😀 b"))
    texts = [logprob.text for logprob in logprobs.told]
    assert texts == ["", "a", " ", "", "", "", "😀", " ", "b"]


def test_likely_tokens_are_spelled_as_they_would_go_on() -> None:
    """The space of a SentencePiece token belongs to it, though decoding it alone drops it."""
    tokenizer = make("metaspace")
    (first, second) = encode("metaspace", "Hello world")[:2]
    logprobs = SpelledLogprobs(tokenizer, (), 2)
    logprobs.add(step([first, second], len(tokenizer)), 2)
    logprobs.finish(Reply("none", [first, second], decode("metaspace", [first, second])))
    assert [each.top[0].text for each in logprobs.told] == [each.text for each in logprobs.told]
    special = SpelledLogprobs(tokenizer, (), 1)
    end = tokenizer.eos_token_id
    special.add(step([end], len(tokenizer)), 1)
    assert special._unspelled[0].top[0].text == "</s>"
