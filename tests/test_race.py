"""A race: what is recorded is what was answered, and all start from the same place."""

from __future__ import annotations

from dataclasses import replace

import folder
import pytest

from nfox import Settings, load
from nfox.engine import Engine
from nfox.race import Race, Run, enter, pieces_of, record
from nfox.reply import Request
from nfox.text.pieces import text_of


@pytest.fixture(scope="module")
def engine() -> Engine:
    settings = Settings(max_new_tokens=24)
    return load(str(folder.llama(endless=True)), method="none", settings=settings)


def run(engine: Engine, request: Request, method: str) -> Run:
    return record(method, enter(engine, request, engine.make(method)))


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_every_run_is_the_plain_reply_step_by_step(engine: Engine, temperature: float) -> None:
    settings = engine.settings.changed(temperature=temperature, seed=3)
    request = engine.request("the quick brown fox", settings, number=0)
    plain = engine.answer(request)
    read = list(engine.cache.tokens)
    race = Race(tuple(run(engine, request, name) for name in ("lookup", "none", "jacobi")))
    assert race.reference is race.runs[1]
    for one in race.runs:
        assert one.reply.ids == plain.ids and one.reply.text == plain.text
        assert race.parting(one) is None
        assert text_of(pieces_of(one.moments)) == plain.text
        times = [moment.seconds for moment in one.moments]
        assert times == sorted(times) and times[0] > 0 and times[-1] == one.seconds
        assert one.moments[-1].tokens == one.reply.stats.tokens
        assert one.until(times[1]) == one.moments[:2] and not one.until(0)
    assert race.seconds == max(one.seconds for one in race.runs)
    assert sorted(race.place(one) for one in race.runs) == [1, 2, 3]
    assert (engine.method, engine.cache.tokens) == ("none", read)


def test_a_race_says_where_texts_part(engine: Engine) -> None:
    request = engine.request("hello", number=0)
    first = run(engine, request, "lookup")
    ids = [*first.reply.ids[:5], first.reply.ids[5] + 1, *first.reply.ids[6:]]
    second = replace(first, reply=replace(first.reply, ids=ids))
    third = replace(first, reply=replace(first.reply, ids=first.reply.ids[:9]))
    race = Race((first, second, third))
    assert race.reference is first  # where nobody decodes plainly
    assert [race.parting(one) for one in race.runs] == [None, 5, 9]


def test_a_warm_up_is_short_and_leaves_the_run_as_it_is(engine: Engine) -> None:
    request = engine.request("hello", number=0)
    drafter = engine.make("lookup")
    assert len(record("lookup", enter(engine, request, drafter, 3)).reply.ids) == 3
    whole = record("lookup", enter(engine, request, drafter))
    assert whole.reply.ids == engine.answer(request).ids
