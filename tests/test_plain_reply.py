"""A reply decoded once more: it is the same, or what differs is measured."""

from __future__ import annotations

from dataclasses import replace

import folder
import pytest
import torch

from nfox import Settings, load
from nfox.decoding.sampling import Sampling
from nfox.decoding.tree import TokenTree
from nfox.engine import Engine
from nfox.errors import UsageError
from nfox.models.options import ModelOptions
from nfox.plain_reply import decode_plainly, find_parting, measure_surprise, plain_scores
from nfox.reply import Reply

SAMPLED = Sampling(temperature=0.9, seed=3, top_p=0.95, repetition_penalty=1.2)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load(
        str(folder.llama(endless=True)), method="lookup", loading=ModelOptions(dtype="float32")
    )


@pytest.mark.parametrize("sampling", [Sampling(), SAMPLED])
def test_a_replay_is_the_reply_and_leaves_the_engine_as_it_is(
    sampling: Sampling, engine: Engine
) -> None:
    request = engine.request("one two one two one", Settings(sampling, max_new_tokens=60))
    reply = engine.answer(request)
    tokens, stops = list(engine.cache.tokens), engine.stop_ids
    engine.stop_ids = frozenset(range(1000))  # as another template has them
    try:
        plain = decode_plainly(engine, request, reply).read_to_end()
    finally:
        engine.stop_ids = stops
    assert plain.ids == reply.ids and find_parting(engine, request, reply, plain) is None
    assert engine.cache.tokens == tokens and plain.method != reply.method


def test_the_scores_choose_what_plain_decoding_says(engine: Engine) -> None:
    request = engine.request("one two", Settings(SAMPLED, max_new_tokens=12))
    reply = engine.answer(request)
    for index, token in enumerate(reply.ids):
        for width in (1, 3):
            scores = plain_scores(engine, request, reply.ids[:index], width)
            assert max(scores, key=scores.__getitem__) == token


def test_a_wrong_token_is_no_near_tie_and_a_close_one_is(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = engine.request("one two", Settings(max_new_tokens=12))
    plain = engine.answer(request)
    scores = plain_scores(engine, request, plain.ids[:5])
    worst = min(scores, key=scores.__getitem__)
    wrong = Reply("lookup", [*plain.ids[:5], worst, *plain.ids[6:]])
    parting = find_parting(engine, request, wrong, plain)
    assert parting is not None and not parting.is_near_tie
    assert (parting.index, parting.token, parting.plain_token) == (5, worst, plain.ids[5])
    assert parting.gap == pytest.approx(max(scores.values()) - scores[worst])
    assert 0 <= parting.rounding < 1e-4
    score = engine.model.target.score

    def rounded(tree: TokenTree, cache: object) -> tuple[torch.Tensor, torch.Tensor]:
        logits, hidden = score(tree, cache)  # type: ignore[arg-type]
        return logits + (torch.arange(logits.shape[-1]) % 7 if len(tree) > 1 else 0), hidden

    monkeypatch.setattr(engine.model.target, "score", rounded)
    second = sorted(scores, key=scores.__getitem__)[-2]
    close = Reply("lookup", [*plain.ids[:5], second])
    parting = find_parting(engine, request, close, plain)
    assert parting is not None and parting.is_near_tie and parting.rounding > parting.gap


def test_what_ends_a_reply_is_its_token(engine: Engine) -> None:
    request = engine.request("one two", Settings(max_new_tokens=6))
    plain = engine.answer(request)
    parting = find_parting(engine, request, Reply("lookup", plain.ids[:3]), plain)
    assert parting is not None and parting.index == 3 and parting.token in engine.stop_ids


def test_surprise_tells_samples_from_what_is_none(engine: Engine) -> None:
    sampling = replace(SAMPLED, repetition_penalty=1.0)
    found = []
    for seed in range(12):
        settings = Settings(replace(sampling, seed=seed), accept="rejection", max_new_tokens=60)
        request = engine.request("one two one two", settings)
        found.append(measure_surprise(engine, request, engine.answer(request)).deviations)
    assert max(map(abs, found)) < 4 and min(found) < 0 < max(found)
    greedy = engine.answer(replace(request, settings=Settings(max_new_tokens=60)))
    told = measure_surprise(engine, request, greedy)
    assert told.deviations < -3 and not told.is_consistent and told.mean < told.expected
    scores = plain_scores(engine, request, greedy.ids[:5])
    cut = next(token for token in range(3, 1000) if token not in scores)
    impossible = measure_surprise(engine, request, Reply("lookup", [*greedy.ids[:5], cut]))
    assert impossible.mean == float("inf") and not impossible.is_consistent
    with pytest.raises(UsageError):
        measure_surprise(engine, request, Reply("lookup"))
