"""What is saved of a training of heads, and that the losses are the same, or so on average."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from torch import nn
from training import METHODS

from nfox.errors import ModelError, UsageError
from nfox.heads.base import IGNORE, TextBatch
from nfox.train.data.numbered_rows import collate
from nfox.train.heads.learner import HeadsLearner
from nfox.train.heads.sampled_vocabulary import SampledVocabulary
from nfox.train.heads.savings import Savings

TEXTS = [[step * i % 23 for i in range(length)] for step, length in ((7, 20), (5, 11), (3, 14))]


def batch(*numbers: int) -> dict[str, torch.Tensor]:
    """Return the batch of the texts of these numbers, of the first two by default."""
    chosen = [(number, TEXTS[number]) for number in numbers or (0, 1)]
    return collate(
        [{"input_ids": t, "labels": [IGNORE] * 4 + t[4:], "number": n} for n, t in chosen]
    )


def learner(method: str, family: str = "llama", **savings: Any) -> HeadsLearner:
    heads: Any = tiny.make(method, family).heads  # type: ignore[attr-defined]
    made = HeadsLearner(heads, tiny.target(family), savings=Savings(**savings))
    made.heads.requires_grad_(True)
    return made.train()


def text(target: Any) -> TextBatch:
    inputs = batch()
    return TextBatch(
        inputs["input_ids"], target.hidden_states(inputs["input_ids"]), inputs["labels"]
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_sample_of_all_tokens_gives_the_whole_loss_and_gradient(method: str, family: str) -> None:
    losses, gradients = [], []
    for size in (0, tiny.VOCABULARY):
        made = learner(method, family, vocabulary_sample=size)
        made.zero_grad()
        loss, _ = made(**batch())
        loss.backward()
        losses.append(loss.detach())
        gradients.append([w.grad.clone() for w in made.parameters() if w.grad is not None])
    torch.testing.assert_close(
        losses[0], losses[1], rtol=1e-6, atol=1e-6
    )  # heads compute losses in float32
    for whole, sampled in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, sampled, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_a_sample_stands_for_the_whole_on_average() -> None:
    target = tiny.target()
    read, state = text(target), 0.3 * torch.randn(32, dtype=torch.float64)
    whole = target.unembed(state).exp().sum()
    torch.manual_seed(0)
    drawn = [SampledVocabulary(target, read, 8) for _ in range(3000)]
    sums = torch.stack([sample.unembed(state).exp().sum() for sample in drawn])
    assert abs(float(sums.mean() / whole) - 1) < 4 * float(sums.std() / whole) / 3000**0.5
    assert {len(sample.tokens) for sample in drawn} == {8 + len(read.ids.unique())}


def test_tokens_keep_their_meaning_under_other_numbers() -> None:
    target = tiny.target()
    read = text(target)
    sample = SampledVocabulary(target, read, 5)
    again = sample.renumbered(read)
    assert torch.equal(sample.tokens[again.ids], read.ids)
    assert torch.equal(again.labels == IGNORE, read.labels == IGNORE)
    learned = read.labels != IGNORE
    assert torch.equal(sample.tokens[again.labels[learned]], read.labels[learned])
    torch.testing.assert_close(sample.embed(again.ids), target.embed(read.ids))
    kept = len(sample.tokens) - 5
    state = torch.randn(3, 32, dtype=torch.float64)
    torch.testing.assert_close(
        sample.unembed(state)[:, :kept], target.unembed(state)[:, sample.tokens[:kept]]
    )


def test_measuring_is_over_the_whole_vocabulary() -> None:
    rows: Any = [{"input_ids": t, "labels": t} for t in TEXTS]
    whole, sampled = (learner(METHODS[0], vocabulary_sample=n).measure(rows) for n in (0, 3))
    assert whole == sampled


@pytest.mark.parametrize("method", METHODS)
def test_states_are_read_once_and_are_the_same(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, plain = learner(method, keep_states=True), learner(method)
    calls: list[tuple[int, ...]] = []
    read = made.target.hidden_states
    monkeypatch.setattr(
        made.target,
        "hidden_states",
        lambda ids, **o: (calls.append(tuple(ids.shape)), read(ids))[1],
    )
    losses = [made(**batch())[0], made(**batch())[0], made(**batch(1, 2))[0]]
    assert calls == [(2, 20), (1, 14)]
    for loss, numbers in zip(losses, ((0, 1), (0, 1), (1, 2)), strict=True):
        inputs = {name: value for name, value in batch(*numbers).items() if name != "number"}
        torch.testing.assert_close(loss, plain(**inputs)[0])
    calls.clear()
    made.eval()(**batch())
    assert calls == [(2, 20)]  # what is measured is not kept


def test_a_head_without_rows_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    made = learner(METHODS[0], vocabulary_sample=4)
    monkeypatch.setattr(made.target.model, "get_output_embeddings", lambda: nn.Bilinear(2, 2, 2))
    with pytest.raises(ModelError, match="Bilinear"):
        made(**batch())


def test_a_sample_below_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="below 0"):
        Savings(vocabulary_sample=-1)


def test_frequent_tokens_are_those_of_the_text_that_was_learned() -> None:
    made = learner("medusa")
    assert made.frequent_tokens() == []  # nothing was learned
    inputs = batch(0)
    inputs["labels"] = torch.tensor([[IGNORE] * 10 + [7, 3] * 5])
    made.eval()
    made(**inputs)
    assert made.frequent_tokens() == []  # what is measured is not learned
    made.train()
    made(**inputs)
    assert made.frequent_tokens() == [3, 7]
    for start in range(0, tiny.VOCABULARY - 20, 20):
        inputs["labels"] = torch.arange(20)[None] + start
        made(**inputs)
    assert made.frequent_tokens() == []  # more than half of the vocabulary
