"""Logits are processed as transformers does it, and noise depends on its key alone."""

from __future__ import annotations

import itertools

import pytest
import torch
import transformers
from torch import Tensor

from nfox.decoding.rules import make_rule
from nfox.decoding.sampling import GumbelNoise, Sampling, generator_of, likeliest_tokens
from nfox.decoding.tree import TokenTree
from nfox.errors import UsageError

OPTIONS = [
    Sampling(*values, repetition_penalty=penalty)
    for *values, penalty in itertools.product(
        (0.3, 1.0, 1.7), (0, 1, 5, 99), (1.0, 0.9, 0.3, 0.01), (0.0, 0.1, 1.0), (1.0, 1.4, 0.7)
    )
]


def theirs(sampling: Sampling, logits: Tensor, seen: list[int]) -> Tensor:
    """Return log-probabilities made by transformers' processors, in the order of its generate()."""
    chain = transformers.LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        chain.append(transformers.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    chain.append(transformers.TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        chain.append(transformers.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        chain.append(transformers.TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        chain.append(transformers.MinPLogitsWarper(sampling.min_p))
    return chain(torch.tensor([seen]), logits[None].clone())[0].log_softmax(-1)


def test_logits_are_processed_as_by_transformers() -> None:
    torch.manual_seed(0)
    for sampling in OPTIONS:
        logits, seen = 3 * torch.randn(20, dtype=torch.float64), [3, 3, 17, 0]
        ours = sampling.log_probabilities(sampling.penalise(logits, seen))
        torch.testing.assert_close(ours, theirs(sampling, logits, seen))


@pytest.mark.parametrize("temperature", [1e-300, 1e-9, 1e-5])
def test_no_temperature_is_too_low(temperature: float) -> None:
    logits = torch.tensor([[5.0, 200.0, -300.0, 200.0 - 1e-3]])
    rule = make_rule("exact", Sampling(temperature=temperature))
    assert rule.judge(TokenTree.chain(0), logits, []).target_tokens == [1]
    assert rule.draw(logits[0], [], 2).tokens[0] == 1


def test_rows_are_processed_one_by_one() -> None:
    torch.manual_seed(0)
    rows = torch.randn(3, 5, 20)
    for sampling in OPTIONS[::7]:
        expected = torch.stack([sampling.log_probabilities(row) for row in rows.view(-1, 20)])
        torch.testing.assert_close(sampling.log_probabilities(rows).view(-1, 20), expected)


def test_logits_stay_as_they_are() -> None:
    logits = torch.randn(20)
    before = logits.clone()
    sampling = Sampling(0.7, 5, 0.8, 0.1, 1.3)
    sampling.log_probabilities(sampling.penalise(logits, [1, 2]))
    assert torch.equal(logits, before)


def test_the_likeliest_token_is_never_cut() -> None:
    logits = torch.tensor([0.0, 5.0, 1.0])
    for sampling in (Sampling(1.0, 1), Sampling(1.0, top_p=1e-9), Sampling(1.0, min_p=1.0)):
        assert sampling.log_probabilities(logits).exp().tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -0.1},
        {"temperature": float("inf")},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"min_p": 2.0},
        {"repetition_penalty": 0.0},
    ],
)
def test_numbers_out_of_range_are_refused_by_name(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        Sampling(**options)  # type: ignore[arg-type]


def test_noise_depends_on_seed_reply_and_position_alone() -> None:
    keys = list(itertools.product((0, 1), (0, 1, 2), (0, 1, 700)))
    rows = {key: GumbelNoise(*key[:2]).at(key[2], 32) for key in keys}
    for (seed, reply, position), row in rows.items():
        noise = GumbelNoise(seed, reply)
        for other in range(position + 2):
            noise.at(other, 32)
        assert torch.equal(noise.at(position, 32), row)
        noise.forget_before(position + 1)
        assert torch.equal(noise.at(position, 32), row)
    for a, b in itertools.combinations(rows.values(), 2):
        assert not torch.equal(a, b)


def test_noise_is_gumbel_noise() -> None:
    noise = GumbelNoise(0)
    values = torch.cat([noise.at(position, 64) for position in range(400)])
    assert values.isfinite().all()
    # The distribution function of what it should be maps it to uniform numbers.
    uniform = (-(-values).exp()).exp().sort().values
    gap = (uniform - torch.linspace(0, 1, len(values))).abs().max()
    assert gap < 1.95 / len(values) ** 0.5  # Kolmogorov and Smirnov, p = 0.001


@pytest.mark.parametrize("size", [3, 4096, 32_000, 50_257])
def test_the_likeliest_tokens_are_the_first_largest(size: int) -> None:
    torch.manual_seed(size)
    for dtype in (torch.float32, torch.float64):
        rows = torch.randn(6, size, dtype=dtype)
        rows[0, [size // 3, size - 1, size // 3 * 2]] = 9.0
        rows[1] = 0.0
        rows[2, 1:] = -torch.inf
        rows[3, [2, size // 2]] = torch.inf
        rows[4, size - 2] = torch.nan
        assert likeliest_tokens(rows) == [int(row.argmax()) for row in rows]
        assert likeliest_tokens(rows)[:4:3] == [size // 3, 2 if size > 4 else 1]


def test_seeds_and_replies_of_any_size_have_noise_of_their_own() -> None:
    keys = [(1, 0), (1, 1), (1 + 2**32, 0), (2**64 - 1, 0), (-2, 0), (1, 2**40)]
    rows = [GumbelNoise(*key).at(10, 50) for key in keys]
    rows += [GumbelNoise(1).at(11, 50)]
    assert len({tuple(row.tolist()) for row in rows}) == len(rows)
    assert torch.equal(GumbelNoise(1).at(10, 50), rows[0])
    drawn = [torch.rand(9, generator=generator_of(*key)).tolist() for key in keys]
    assert len({tuple(numbers) for numbers in drawn}) == len(keys)


def test_noise_is_of_gumbels_distribution() -> None:
    noise = torch.cat([GumbelNoise(5).at(position, 1000) for position in range(100)]).double()
    places = torch.arange(1, len(noise) + 1) / len(noise)
    distance = (torch.exp(-torch.exp(-noise.sort().values)) - places).abs().max()
    assert distance < 1.95 / len(noise) ** 0.5  # Kolmogorov and Smirnov, at one in 1,000


def test_the_nucleus_of_a_large_vocabulary_is_that_of_all_tokens_in_order() -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(4, 3000, dtype=torch.float64)
    for top_p in (0.01, 0.3, 0.9, 0.999, 1 - 1e-12):
        kept = Sampling(1.0, top_p=top_p).log_probabilities(logits).isfinite()
        for row, found in zip(logits.softmax(-1), kept, strict=True):
            chances, tokens = row.sort(descending=True)
            count = int((chances.cumsum(0) < top_p).sum()) + 1
            assert sorted(tokens[:count].tolist()) == found.nonzero()[:, 0].tolist()
