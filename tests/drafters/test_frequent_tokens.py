"""Guesses from the frequent tokens alone name the right tokens, and the text stays the same."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor
from typing_extensions import override

from nfox.decoding.costs import sample_cache
from nfox.decoding.drafter import Context
from nfox.decoding.rules import make_rule
from nfox.decoding.target import Target, Vocabulary
from nfox.drafters.common.heads import HeadsDrafter
from nfox.drafters.medusa import Medusa
from nfox.errors import ModelError
from nfox.files.hub import HubOptions
from nfox.heads.checkpoint import read_info, read_weights, write
from nfox.models.options import LoadedModel

FREQUENT = sorted(range(3, tiny.VOCABULARY, 2))


class Frequent(Vocabulary):
    """The odd tokens of a target, with the target's own logits."""

    device = torch.device("cpu")

    def __init__(self, target: Target) -> None:
        self._target = target

    @override
    def embed(self, ids: Tensor) -> Tensor:
        return self._target.embed(ids)

    @override
    def unembed(self, hidden: Tensor) -> Tensor:
        return self._target.unembed(hidden)[..., FREQUENT]

    @override
    def token_ids(self, columns: Sequence[int]) -> list[int]:
        return [FREQUENT[column] for column in columns]


def guessing(method: str, **options: object) -> HeadsDrafter:
    drafter = tiny.make(method, **options)
    assert isinstance(drafter, HeadsDrafter)
    drafter.vocabulary = Frequent(drafter.target)
    return drafter


@pytest.mark.parametrize("method", ["medusa", "chimera", "ctc"])
def test_only_frequent_tokens_are_guessed_and_the_text_is_the_same(method: str) -> None:
    steps = tiny.run(tiny.target(), guessing(method), tiny.PROMPT)
    assert tiny.text(steps) == tiny.slow("llama", tiny.PROMPT, 24)
    guessed = {token for step in steps for token in step.tree.tokens[1:]}
    assert guessed
    assert guessed <= set(FREQUENT)


@pytest.mark.parametrize("method", ["medusa", "chimera"])
def test_the_likeliest_frequent_tokens_are_those_of_all(method: str) -> None:
    """Where the whole vocabulary ranks tokens, its frequent part ranks them alike."""
    whole, few = tiny.make(method), guessing(method)
    assert isinstance(whole, HeadsDrafter)
    context = Context(sample_cache(whole.target), 5, [], [], 9, make_rule())
    ranked = whole.guess(context, tiny.VOCABULARY).tokens[0]
    expected = [token for token in ranked if token in FREQUENT]
    assert few.guess(context, 3).tokens[0] == expected[:3]
    assert few.guess(context, tiny.VOCABULARY).tokens[0] == expected


@pytest.mark.parametrize("tokens", [[1, tiny.VOCABULARY], [3, 2], [3, 3]])
def test_tokens_that_cannot_be_are_refused(tmp_path: Path, tokens: list[int]) -> None:
    folder = shutil.copytree(tiny.heads_folder("medusa"), tmp_path / "heads")
    info = read_info(str(folder))
    assert info
    weights = read_weights(str(folder))
    write(folder, info.model_copy(update={"frequent_tokens": tokens}), weights)
    with pytest.raises(ModelError, match="frequent tokens"):
        Medusa.load_heads(LoadedModel("the target", tiny.target()), str(folder), HubOptions())
