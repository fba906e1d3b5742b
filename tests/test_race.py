"""A race: what is recorded is what was answered, and all start from the same place."""

from __future__ import annotations

from dataclasses import replace

import folder
import pytest

from nfox import Settings, load
from nfox.drafters.none import Autoregressive
from nfox.engine import Engine
from nfox.plain_reply import Parting
from nfox.race import Race, Run, compare, enter, pieces_of, record
from nfox.reply import Request
from nfox.text.pieces import text_of


@pytest.fixture(scope="module")
def engine() -> Engine:
    settings = Settings(max_new_tokens=24)
    return load(str(folder.llama(endless=True)), method="none", settings=settings)


class Silent(Autoregressive):
    """Would draft, and finds nothing to."""

    drafts = True


def run(engine: Engine, request: Request, method: str) -> Run:
    drafter = engine.make(method)
    return record(method, drafter, enter(engine, request, drafter))


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
        assert race.index_of_parting(one) is None and one.is_complete
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
    assert [race.index_of_parting(one) for one in race.runs] == [None, 5, 9]
    assert race.speedup(second) is None


def test_a_difference_from_plain_decoding_is_explained(engine: Engine) -> None:
    request = engine.request("hello", number=0)
    plain, drafted = (run(engine, request, name) for name in ("none", "lookup"))
    assert [one.parting for one in compare(engine, request, [plain, drafted]).runs] == [None, None]
    ids = [*plain.reply.ids[:5], plain.reply.ids[5] + 1]
    wrong = replace(drafted, reply=replace(drafted.reply, ids=ids))
    race = compare(engine, request, [plain, wrong])
    parting = race.runs[1].parting
    assert isinstance(parting, Parting) and parting.index == 5
    assert parting.plain_token == plain.reply.ids[5] and not parting.is_near_tie
    settings = engine.settings.changed(accept="rejection", temperature=0.8)
    race_of_draws = compare(engine, replace(request, settings=settings), [plain, wrong])
    assert race_of_draws.follows_drafts and race_of_draws.runs == (plain, wrong)
    speeds = [one.reply.stats.tokens_per_second for one in (wrong, plain)]
    assert race.speedup(race.runs[1]) == speeds[0] / speeds[1]


def test_a_run_says_why_it_drafted_nothing(engine: Engine) -> None:
    request = engine.request("hello", number=0)
    for drafter, why in (
        (engine.make("none"), ""),
        (engine.make("lookup", {"gamma": "2"}), ""),  # without a number it depends on costs
        (engine.make("lookup", {"gamma": "0"}), "as asked for"),
        (Silent(), "no guess was likely enough to pay"),
    ):
        one = record("it", drafter, enter(engine, request, drafter))
        assert one.idle == why


def test_a_warm_up_is_short_and_leaves_the_run_as_it_is(engine: Engine) -> None:
    request = engine.request("hello", number=0)
    drafter = engine.make("lookup")
    assert len(record("lookup", drafter, enter(engine, request, drafter, 3)).reply.ids) == 3
    whole = record("lookup", drafter, enter(engine, request, drafter))
    assert whole.reply.ids == engine.answer(request).ids
