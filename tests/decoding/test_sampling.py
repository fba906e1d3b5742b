"""Logits are processed as transformers does it, and noise depends on its key alone."""

from __future__ import annotations

import gc
import itertools
import weakref

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from nfox.decoding.noise import GumbelNoise, generator_of
from nfox.decoding.rules import make_rule
from nfox.decoding.sampling import Sampling, likeliest_tokens
from nfox.decoding.target import as_array, token_range
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
    assert list(rule.judge(TokenTree.chain(0), logits, []).target_tokens) == [1]
    assert rule.draw(logits[0], [], 2).tokens[0] == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_sampled_is_the_largest_with_noise_of_what_is_left(dtype: torch.dtype) -> None:
    """Also where logits are equal, or cut off already."""
    torch.manual_seed(1)
    noise, ids = GumbelNoise(2), token_range(20)
    for number, sampling in enumerate(OPTIONS):
        rows = 3 * torch.randn(4, 20, dtype=dtype)
        rows[1] = rows[1].round()
        rows[2, 3:9] = -torch.inf
        for place, row in enumerate(rows):
            gumbel = noise.at(4 * number + place, ids)
            perturbed = sampling.log_probabilities(row) + torch.from_numpy(gumbel.copy())
            token = sampling.sample(as_array(row), gumbel)
            # Where two sums are rounded to one number, either is the largest.
            assert perturbed[token] >= perturbed.max() - 1e-5
            assert perturbed[token] > -torch.inf


def test_noise_of_the_whole_vocabulary_is_that_of_some_tokens_and_made_once() -> None:
    noise, ids = GumbelNoise(2), token_range(50)
    row = noise.at(7, ids)
    assert np.array_equal(row[10:20], noise.at(7, np.arange(10, 20, dtype=np.uint32)))
    assert noise.at(7, ids) is row
    with pytest.raises(ValueError, match="read-only"):
        row += 1  # others have it too


def test_the_noise_of_a_reply_goes_with_it_at_once() -> None:
    noise = GumbelNoise(2)
    noise.at(7, token_range(50))
    left = weakref.ref(noise)
    gc.disable()
    try:
        del noise
        assert left() is None
    finally:
        gc.enable()


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


def noise_of(seed: int, reply: int, position: int, count: int) -> list[float]:
    return GumbelNoise(seed, reply).at(position, token_range(count)).tolist()


def test_noise_depends_on_seed_reply_position_and_token_alone() -> None:
    keys = list(itertools.product((0, 1), (0, 1, 2), (0, 1, 700)))
    rows = {key: noise_of(*key, 32) for key in keys}
    for (seed, reply, position), row in rows.items():
        noise = GumbelNoise(seed, reply)
        noise.at(position + 1, token_range(9))
        some = np.array([31, 4, 4, 0], np.uint32)
        assert noise.at(position, some).tolist() == [row[token] for token in some]
    for a, b in itertools.combinations(rows.values(), 2):
        assert not set(a) & set(b)


def test_noise_is_of_gumbels_distribution() -> None:
    """For many tokens at few positions as for few tokens at many."""
    for positions, count in ((2, 50_000), (400, 250), (25_000, 4)):
        noise = GumbelNoise(5)
        values = np.concatenate([noise.at(at, token_range(count)) for at in range(positions)])
        assert np.isfinite(values).all()
        places = np.arange(1, len(values) + 1) / len(values)
        # The distribution function of what it should be maps it to uniform numbers.
        distance = np.abs(np.exp(-np.exp(-np.sort(values.astype(np.float64)))) - places).max()
        assert distance < 1.95 / len(values) ** 0.5  # Kolmogorov and Smirnov, at one in 1,000


def test_large_noise_is_as_rare_as_it_should_be_and_nearly_always_another_number() -> None:
    """So that unlikely tokens are drawn, and seldom two that tie: by 32 bits, not a float's 23."""
    noise, ids = GumbelNoise(6), token_range(2**20)
    large = np.concatenate([row[row > 11] for row in (noise.at(at, ids) for at in range(48))])
    for level in (11, 13, 15, 16):
        expected = 48 * 2**20 * np.exp(-float(level))
        assert abs((large > level).sum() - expected) < 4 * expected**0.5 + 1
    assert len({*large.tolist()}) > 0.98 * len(large)
    assert large.max() > 16.7  # more than a float below 1 could give


def test_noise_of_neighbours_has_nothing_in_common() -> None:
    """Each two bits of the uniform numbers of tokens, positions, replies or seeds that are near."""
    bits = np.stack(
        [
            GumbelNoise(seed, reply).at(position, token_range(1024))
            for seed, reply, position in itertools.product(range(8), range(8), range(8))
        ]
    ).reshape(8, 8, 8, 1024)
    uniform = np.exp(-np.exp(-bits.astype(np.float64)))
    numbers = (uniform * 2**12).astype(np.int64)
    bits = numbers[..., None] >> np.arange(12) & 1  # [seed, reply, position, token, bit]
    signs = (1 - 2 * bits).astype(np.float32)
    for axis, distance in itertools.product(range(4), (1, 2, 4)):
        here = np.moveaxis(signs, axis, 0)[:-distance].reshape(-1, 12)
        there = np.moveaxis(signs, axis, 0)[distance:].reshape(-1, 12)
        correlations = (here.T @ there) / len(here) ** 0.5  # standard normal, 1,728 in all
        assert np.abs(correlations).max() < 5


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
    rows = [noise_of(*key, 10, 50) for key in keys]
    rows += [noise_of(1, 0, 11, 50)]
    assert len({tuple(row) for row in rows}) == len(rows)
    assert noise_of(1, 0, 10, 50) == rows[0]
    drawn = [torch.rand(9, generator=generator_of(*key)).tolist() for key in keys]
    assert len({tuple(numbers) for numbers in drawn}) == len(keys)


def test_the_nucleus_of_a_large_vocabulary_is_that_of_all_tokens_in_order() -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(4, 3000, dtype=torch.float64)
    for top_p in (0.01, 0.3, 0.9, 0.999, 1 - 1e-12):
        kept = Sampling(1.0, top_p=top_p).log_probabilities(logits).isfinite()
        for row, found in zip(logits.softmax(-1), kept, strict=True):
            chances, tokens = row.sort(descending=True)
            count = int((chances.cumsum(0) < top_p).sum()) + 1
            assert sorted(tokens[:count].tolist()) == found.nonzero()[:, 0].tolist()
