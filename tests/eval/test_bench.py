"""Every figure of the benchmark has a definition; here it is computed by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import folder
import pytest
import torch

from nfox import Engine, Message, ModelOptions, Settings, load
from nfox.decoding.costs import Costs, expected_tau
from nfox.decoding.drafter import Context
from nfox.decoding.rules import Greedy
from nfox.decoding.sampling import Sampling
from nfox.decoding.stats import Stats
from nfox.decoding.verify import verify
from nfox.drafters import plain_method
from nfox.drafters.spec import Speculative
from nfox.errors import UsageError
from nfox.eval.bench.divergence import Divergence, divergences, first_divergence
from nfox.eval.bench.entrants import MethodEntrant, ReplayEntrant, SimulatedEntrant
from nfox.eval.bench.figures import ALL, Row
from nfox.eval.bench.metrics import rows, speedups
from nfox.eval.bench.runner import MethodRunner
from nfox.eval.bench.simulated_drafter import ForcedRule, SimulatedDrafter
from nfox.eval.bench.simulation import expected_steps, simulation
from nfox.eval.bench.tasks import read
from nfox.eval.bench.trials import Bench, Task, Trial

PLAIN = plain_method()
PLAIN_ONE = MethodEntrant.parse(PLAIN)


def stats(lengths: list[int], *, seconds: float, **more: Any) -> Stats:
    """Of a reply whose steps gave so many tokens each."""
    reply = Stats(steps=len(lengths), tokens=sum(lengths), lengths=lengths, seconds=seconds)
    for name, value in more.items():
        setattr(reply, name, value)
    return reply


def trial(who: str, task: int, turn: int, *replies: Stats, ids: Any = None, **more: Any) -> Trial:
    return Trial(who, task, turn, ids or [[1, 2]], list(replies), more.pop("memory", 0), **more)


def one_row(found: list[Row], who: str, kind: str = ALL) -> Row:
    (row,) = [row for row in found if row.method == who and row.category == kind]
    return row


def test_the_figures_of_a_method_by_hand() -> None:
    """Two prompts, the second with two turns: all tokens over all seconds, not means of means."""
    drafting = {"draft_seconds": 0.2, "target_seconds": 0.5, "verify_seconds": 0.1}
    trials = [
        trial(PLAIN, 0, 0, stats([1] * 6, seconds=3.0), memory=10_000_000),
        trial("fast", 0, 0, stats([3, 2, 1], seconds=1.0, **drafting, cache_seconds=0.05,
                                  drafted=10, tried=[3, 2], reached=[2, 1], first_token_seconds=0.4,
                                  prefill_seconds=0.5)),
        trial(PLAIN, 1, 0, stats([1] * 4, seconds=2.0), stats([1], seconds=0.5)),
        trial("fast", 1, 0, stats([4], seconds=0.5, tried=[1], reached=[1], drafted=4,
                                  first_token_seconds=0.2),
              stats([1], seconds=0.5, first_token_seconds=0.3), ids=[[1, 2], [3]],
              memory=20_000_000),
    ]  # fmt: skip
    found = one_row(rows("tiny", trials, ["a", "a"]), "fast")
    assert (found.prompts, found.tokens, found.steps) == (2, 11, 5)
    assert found.tau == pytest.approx(11 / 5)
    assert found.tokens_per_second == pytest.approx(11 / 2.0)
    assert found.speedup == pytest.approx((11 / 2.0) / (11 / 5.5))
    assert found.efficiency == pytest.approx(found.speedup / (11 / 5))
    assert found.ttft_ms == pytest.approx(300)
    assert found.identical == 0.5  # the second conversation has another reply
    assert found.accept_by_depth == pytest.approx([3 / 4, 1 / 2])
    assert found.peak_memory_mb == 20
    parts = {"draft": 40, "target": 100, "verify": 20, "cache": 10, "host": 230}
    assert found.time is not None
    assert found.time.model_dump() == pytest.approx(parts)  # ms of each of 5 steps
    assert found.wide == pytest.approx(0.1 / (5.5 / 11))  # of the steps of plain decoding
    assert found.drafting == pytest.approx(0.04 / 0.5)
    assert found.predicted == pytest.approx(2.2 / (0.2 + 0.08))
    assert found.overhead == pytest.approx((2.0 - 0.2 - 0.5) / 2.0)
    assert found.speedup_total == pytest.approx((5 / 2.5) / (4 / 5.5))  # by replies' tokens
    assert found.nodes == pytest.approx(14 / 5)
    base = one_row(rows("tiny", trials, ["a", "a"]), PLAIN)
    assert (base.speedup, base.identical, base.tau) == (1, 1, 1)
    assert base.accept_by_depth == []


def test_categories_are_reported_apart_and_together() -> None:
    trials = [
        trial(who, task, 0, stats([1, 1], seconds=(1 + task) / (2 if who == "fast" else 1)))
        for task in range(3)
        for who in (PLAIN, "fast")
    ]
    parted = [Divergence("fast", 1, 0, 4, 0.5), Divergence("fast", 2, 0, 1, 0.25)]
    found = rows("tiny", trials, ["x", "x", "y"], parted)
    assert [row.category for row in found] == [ALL, ALL, "x", "x", "y", "y"]
    assert [one_row(found, "fast", kind).prompts for kind in (ALL, "x", "y")] == [3, 2, 1]
    assert [one_row(found, "fast", kind).gap for kind in (ALL, "x", "y")] == [0.5, 0.5, 0.25]
    assert [one_row(found, PLAIN, kind).gap for kind in (ALL, "x", "y")] == [0, 0, 0]
    assert all(one_row(found, "fast", kind).speedup == 2 for kind in (ALL, "x", "y"))


def test_nothing_drafted_nothing_said_and_too_long() -> None:
    trials = [
        trial(PLAIN, 0, 0, stats([1], seconds=0.1)),
        trial("slow", 0, 0, stats([1], seconds=0.2)),
        trial(PLAIN, 1, 0, ids=[], too_long=True),
        trial("slow", 1, 0, ids=[], too_long=True),
    ]
    found = one_row(rows("tiny", trials, ["a", "a"]), "slow")
    assert (found.tau, found.speedup, found.too_long) == (1, 0.5, 1)
    empty = one_row(rows("tiny", trials[2:], ["a", "a"]), "slow")
    assert (empty.tokens, empty.tau, empty.speedup) == (0, 0, 0)


def test_the_interval_holds_the_ratio_and_narrows_with_more_prompts() -> None:
    def spread(count: int) -> float:
        trials = [
            trial(who, task, turn, stats([2] * 5, seconds=1 + 0.1 * ((task * 7 + turn) % 5)
                                         if who == "own" else 2.0))
            for task in range(count) for turn in range(2) for who in (PLAIN, "own")
        ]  # fmt: skip
        own = [one for one in trials if one.entrant == "own"]
        base = [one for one in trials if one.entrant == PLAIN]
        ratio, low, high = speedups(own, base)
        assert low <= ratio <= high
        assert speedups(own, base) == (ratio, low, high)
        return high - low

    assert spread(40) < spread(5) / 2
    same = [trial("own", task, 0, stats([1], seconds=1.0)) for task in range(3)]
    assert speedups(same, same) == (1, 1, 1)


def test_the_bounds_by_hand() -> None:
    """One prompt of two is as fast as plain decoding, the other three times: a quarter of the
    drawings takes the one twice, a quarter the other.
    """
    own = [trial("own", 0, 0, stats([1] * 6, seconds=6.0)),
           trial("own", 1, 0, stats([1] * 6, seconds=2.0))]  # fmt: skip
    base = [trial(PLAIN, task, 0, stats([1] * 6, seconds=6.0)) for task in (0, 1)]
    assert speedups(own, base) == pytest.approx((1.5, 1, 3))


def test_what_says_nothing_of_speed_is_not_in_the_bounds() -> None:
    """All of a peer's first reply came with the prompt's forward: no step, and no seconds."""
    own = [trial("own", 0, 0, Stats()), trial("own", 1, 0, stats([1] * 6, seconds=2.0))]
    base = [trial(PLAIN, task, 0, stats([1] * 6, seconds=6.0)) for task in (0, 1)]
    assert speedups(own, base) == pytest.approx((3, 3, 3))
    assert speedups(own[:1], base[:1]) == (0, 0, 0)


@pytest.fixture(scope="module")
def engine() -> Engine:
    loading = ModelOptions(dtype="float32", offline=True)
    return load(str(folder.llama()), loading=loading, settings=Settings(max_new_tokens=12))


TASKS = [
    Task("one", "a", ("the quick brown fox",)),
    Task("two", "b", ("over the lazy", "dog, and again", "the fox")),
]


def bench(engine: Engine, *methods: str) -> Bench:
    return Bench(engine, [MethodEntrant.parse(name) for name in (PLAIN, *methods)], TASKS)


def test_rounds_are_interleaved_and_conversations_are_equal(engine: Engine) -> None:
    told: list[tuple[int, int]] = []
    benchmark = bench(engine, "jacobi:window=3", "lookup")
    trials = list(benchmark.rounds(2, 1, lambda *done: told.append(done)))
    order = [(one.round, one.task) for one in trials]
    assert order == [(turn, task) for turn in (0, 1) for task in (0, 1) for _ in range(3)]
    who = (PLAIN, "jacobi:window=3", "lookup")
    firsts = [trials[place : place + 3] for place in range(0, 12, 3)]
    held = [tuple(one.entrant for one in group) for group in firsts]
    # Nobody always follows the same one.
    assert held == [who, (*who[1:], who[0]), (*who[1:], who[0]), (who[2], *who[:2])]
    assert told == [(done, 12) for done in range(1, 13)]
    for one in trials:
        base = next(t for t in trials if t.task == one.task and t.entrant == PLAIN)
        assert one.replies == base.replies  # in float32
        assert first_divergence(benchmark, one, base) is None
        assert len(one.replies) == len(TASKS[one.task].turns)
        assert one.memory > 0
        assert all(reply.tokens > 0 for reply in one.stats)
    # Later turns read only what is new.
    later = next(one for one in trials if one.task == 1).stats[1:]
    assert all(0 < reply.cached_tokens < reply.prompt_tokens for reply in later)
    assert {row.identical for row in rows("tiny", trials, ["a", "b"])} == {1.0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("acceptance", "gamma"), [(0.6, 4), (0.7, 4), (0.8, 4), (0.9, 4), (0.8, 1)]
)
def test_a_simulated_drafter_gives_the_tau_of_the_formula(acceptance: float, gamma: int) -> None:
    """Within 4 % over 5,000 tokens; no model is needed to know what will be accepted."""
    text = [token % 50 for token in range(5_001)]
    drafter = SimulatedDrafter(acceptance, gamma, 64)
    drafter.know(text)
    rule, cache = ForcedRule(Greedy(), drafter), SimpleNamespace(tokens=list[int]())
    steps = 0
    while (read := len(cache.tokens)) < 5_000:
        tree = drafter.propose(Context(cache, text[read], [], [], 5_000 - read - 1, rule))  # type: ignore[arg-type]
        verdict = verify(tree, torch.zeros(len(tree), 64), rule, cache.tokens)
        emitted = [*(tree.tokens[node] for node in verdict.path[1:]), verdict.next_token]
        assert emitted == text[read + 1 : read + 1 + len(emitted)]
        cache.tokens += [text[read], *emitted[:-1]]
        steps += 1
    assert 5_000 / steps == pytest.approx(expected_tau(acceptance, gamma), rel=0.04)


def test_the_steps_of_a_short_reply_by_hand() -> None:
    """Two tokens, one drafted: one step if it is right, else two. Three: one step less once."""
    assert expected_steps(0.8, 4, 0) == 0
    assert expected_steps(0.8, 4, 1) == 1
    assert expected_steps(0.8, 4, 2) == pytest.approx(0.8 * 1 + 0.2 * 2)
    first_wrong, second_wrong = 0.2 * (1 + 1.2), 0.8 * 0.2 * (1 + 1)
    assert expected_steps(0.8, 4, 3) == pytest.approx(first_wrong + second_wrong + 0.8 * 0.8)
    assert expected_steps(1.0, 4, 12) == 3
    assert expected_steps(0.0, 4, 7) == 7
    assert 5000 / expected_steps(0.7, 3, 5000) == pytest.approx(expected_tau(0.7, 3), rel=1e-3)


def test_the_speed_of_a_simulation_by_hand() -> None:
    one = SimulatedEntrant.of(0.5, 1)
    drafting = {"draft_seconds": 0.2, "target_seconds": 0.5, "verify_seconds": 0.0}
    own = trial(one.name, 0, 0, stats([2, 1, 1, 2], seconds=1.0, **drafting))
    trials = [trial(PLAIN, 0, 0, stats([1] * 6, seconds=0.6)), own]
    (found,) = simulation([one], trials, rows("tiny", trials, ["a"]), Costs({1: 0.1, 2: 0.15}))
    assert (found.tau, found.expected_tau) == (1.5, 1.5)
    # tau t(1) / (t(2) + d), and drafting a token takes .2 / 4 steps.
    assert found.expected_speedup == pytest.approx(1.5 * 0.1 / (0.15 + 0.05))
    assert found.expected_tau_cut == pytest.approx(6 / expected_steps(0.5, 1, 6))


@pytest.mark.slow
def test_a_simulation_goes_through_the_engine(engine: Engine) -> None:
    """Always wrong, always right, and in between, without changing one token."""
    stops, settings = engine.stop_ids, engine.settings
    engine.stop_ids, engine.settings = frozenset(), Settings(max_new_tokens=100)
    rates = [(0.0, 4), (1.0, 4), (1.0, 1), (0.7, 2)]
    try:
        benchmark = Bench(
            engine, [PLAIN_ONE, *(SimulatedEntrant.of(*rate) for rate in rates)], TASKS
        )
        found = rows("tiny", trials := list(benchmark.rounds(1, 0)), ["a", "a"])
    finally:
        engine.stop_ids, engine.settings = stops, settings
    assert divergences(benchmark, trials) == []
    wrong, right, single, between = simulation(benchmark.entrants, trials, found, None)
    assert wrong.tau == wrong.expected_tau == 1
    assert (right.tau, right.expected_tau) == (5, 5)
    assert (single.tau, single.expected_tau) == (2, 2)
    assert between.tau == pytest.approx(between.expected_tau_cut, rel=0.1)  # of 400 tokens
    assert between.expected_tau_cut < between.expected_tau  # replies end inside of a step


def test_near_ties_do_not_end_a_simulation(engine: Engine) -> None:
    """Its text is the plain one by decree, whatever the logits of a wide forward say."""
    benchmark = Bench(engine, [PLAIN_ONE, SimulatedEntrant.of(1.0, 3)], TASKS)
    benchmark.run_trial(PLAIN_ONE, 0, 0)
    # Not what the model would say.
    known = [[*ids[:-2], 200, 201] for ids in benchmark.plain_texts[0]]
    benchmark.plain_texts[0] = known
    held = benchmark.run_trial(benchmark.entrants[1], 0, 0)
    assert held.replies[0][-2:] == [200, 201]
    assert held.stats[0].tau == 4


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=1.0, seed=3), Sampling(repetition_penalty=1.3)]
)
def test_a_replay_says_the_plain_text_in_full_steps(engine: Engine, sampling: Sampling) -> None:
    """Everything that it drafts is right, and is verified as the guesses of methods are."""
    before, engine.settings = engine.settings, Settings(max_new_tokens=12, sampling=sampling)
    try:
        entrants = [PLAIN_ONE, ReplayEntrant.of(3), ReplayEntrant.of(1)]
        benchmark = Bench(engine, entrants, TASKS)
        trials = list(benchmark.rounds(1, 0))
        found = rows("tiny", trials, ["a", "b"])
    finally:
        engine.settings = before
    assert [one.kind for one in benchmark.entrants] == ["method", "simulated", "simulated"]
    for entrant, gamma in zip(entrants[1:], (3, 1), strict=True):
        row = one_row(found, entrant.name)
        assert row.identical == 1
        assert row.accept_by_depth == [1] * gamma
        lengths = [length for trial in trials if trial.entrant == entrant.name
                   for reply in trial.stats for length in reply.lengths[:-1]]  # fmt: skip
        assert set(lengths) == {gamma + 1}
        assert row.efficiency == pytest.approx(row.speedup / row.tau)


def test_a_replay_of_another_text_costs_time_and_never_the_text(engine: Engine) -> None:
    entrant = ReplayEntrant.of(3)
    benchmark = Bench(engine, [PLAIN_ONE, entrant], TASKS)
    base = benchmark.run_trial(PLAIN_ONE, 1, 0)
    wrong = [[*ids[:-6], *((token + 1) % 300 for token in ids[-6:])] for ids in
             benchmark.plain_texts[1]]  # fmt: skip
    for known in (wrong, wrong[:1], [[]] * 3):
        benchmark.plain_texts[1] = known
        held = benchmark.run_trial(entrant, 1, 0)
        assert held.replies == base.replies
    assert held.stats[0].drafted == 0


@contextmanager
def known_beyond_its_end(engine: Engine, **settings: Any) -> Iterator[tuple[Bench, list[int]]]:
    """Yield a benchmark whose simulated drafter, of gamma 4, is always right, and knows what would
    follow a reply's end; and the plain reply with that.
    """
    stops, before = engine.stop_ids, engine.settings
    engine.stop_ids = frozenset()
    benchmark = Bench(engine, [PLAIN_ONE, SimulatedEntrant.of(1.0, 4)], TASKS)
    (plain_ids,) = benchmark.run_trial(PLAIN_ONE, 0, 0).replies
    benchmark.settings = Settings(**settings)
    try:
        yield benchmark, plain_ids
    finally:
        engine.stop_ids, engine.settings = stops, before


def simulated_trial(benchmark: Bench) -> tuple[Stats, Row]:
    """Run the first task plainly and simulated; return the latter's stats and row."""
    known = benchmark.plain_texts[0]
    trials = [benchmark.run_trial(PLAIN_ONE, 0, 0)]
    benchmark.plain_texts[0] = known
    trials.append(benchmark.run_trial(benchmark.entrants[1], 0, 0))
    return trials[1].stats[0], one_row(rows("tiny", trials, ["a"]), benchmark.entrants[1].name)


def test_an_end_inside_a_block_is_the_last_token_that_counts(engine: Engine) -> None:
    with known_beyond_its_end(engine, max_new_tokens=12) as (benchmark, plain_ids):
        place = next(place for place in (5, 6, 7, 8) if plain_ids.index(plain_ids[place]) == place)
        engine.stop_ids = frozenset({plain_ids[place]})
        stats, row = simulated_trial(benchmark)
    assert stats.lengths == [5, place - 4]  # of a block of five
    assert (row.tokens, row.steps, row.tau) == (place + 1, 2, (place + 1) / 2)
    assert row.nodes == 4  # drafted, whatever became of it
    assert row.identical == 1


def test_a_reply_that_is_cut_counts_what_it_has(engine: Engine) -> None:
    with known_beyond_its_end(engine, max_new_tokens=7) as (benchmark, _):
        stats, row = simulated_trial(benchmark)
    assert (stats.lengths, row.tau, row.accept_by_depth) == ([5, 2], 3.5, [1, 1, 1, 1])


def test_a_reply_of_one_token(engine: Engine) -> None:
    with known_beyond_its_end(engine, max_new_tokens=1) as (benchmark, _):
        stats, row = simulated_trial(benchmark)
    assert (row.tokens, row.steps, row.tau, row.nodes) == (1, 1, 1, 0)
    assert row.ttft_ms == pytest.approx(1e3 * (stats.prefill_seconds + stats.seconds))
    assert row.accept_by_depth == []


def test_a_method_that_drafts_nothing_has_the_figures_of_plain_decoding(engine: Engine) -> None:
    benchmark = bench(engine, "jacobi:window=0:pool=0")
    row = rows("tiny", list(benchmark.rounds(1, 0)), ["a", "b"])[1]
    assert (row.tau, row.nodes, row.accept_by_depth) == (1, 0, [])
    assert row.identical == 1


@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(repetition_penalty=1.5), Sampling(temperature=1.5, top_k=200, seed=3)],
)
def test_the_gap_is_of_what_a_token_was_chosen_by(engine: Engine, sampling: Sampling) -> None:
    """The plain token is the largest by logits with penalties and noise, whatever the others."""
    engine.settings, before = Settings(max_new_tokens=12, sampling=sampling), engine.settings
    try:
        benchmark = bench(engine)
        (base,) = (one for one in benchmark.rounds(1, 0) if one.task == 1)
        gaps = []
        for other in range(1, 200, 7):
            ids = [list(reply) for reply in base.replies]
            ids[1][2] = (ids[1][2] + other) % 300
            found = first_divergence(benchmark, Trial("x", 1, 0, ids, [], 0), base)
            assert found is not None
            gaps.append(found.gap)
    finally:
        engine.settings = before
    assert min(gaps) > 0
    if sampling.greedy and sampling.repetition_penalty == 1:  # by hand
        said = [Message("user", TASKS[1].turns[0])]
        text = engine.model.tokenizer.decode(base.replies[0], skip_special_tokens=True)
        said += [Message("assistant", text, tuple(base.replies[0]))]
        prompt = engine.encode([*said, Message("user", TASKS[1].turns[1])]).ids
        with torch.inference_mode():
            ids = torch.tensor([[*prompt, *base.replies[1][:2]]])
            logits = engine.model.target.model(ids).logits[0, -1]
        own = base.replies[1][2]
        assert gaps[0] == pytest.approx(float(logits[own] - logits[(own + 1) % 300]), abs=1e-4)


def test_where_replies_part_is_found_with_its_gap(engine: Engine) -> None:
    benchmark = bench(engine)
    (base,) = (one for one in benchmark.rounds(1, 0) if one.task == 1)
    changed = [list(ids) for ids in base.replies]
    changed[1][2] = (changed[1][2] + 1) % 300
    found = first_divergence(benchmark, Trial("x", 1, 0, changed, [], 0), base)
    assert found is not None
    assert (found.reply, found.token) == (1, 2)
    assert found.gap > 0  # the plain one is the likeliest
    cut = [*base.replies[:2], base.replies[2][:5]]
    found = first_divergence(benchmark, Trial("x", 1, 0, cut, [], 0), base)
    assert found is not None
    assert (found.reply, found.token) == (2, 5)


def test_every_conversation_begins_with_nothing_read() -> None:
    """Neither the target nor what a method keeps of its own knows a prompt from before."""
    engine = load(
        str(folder.llama()), draft_model=str(folder.llama(1)), settings=Settings(max_new_tokens=8),
        loading=ModelOptions(dtype="float32", offline=True),
    )  # fmt: skip
    benchmark = Bench(engine, [PLAIN_ONE, MethodEntrant.parse("spec:gamma=2")], TASKS[:1])
    runner = benchmark.runners["spec:gamma=2"]
    assert isinstance(runner, MethodRunner)
    assert isinstance(runner.drafter, Speculative)
    for turn in range(2):
        runner.begin(())
        assert not runner.drafter.cache.tokens
        assert not runner.cache.tokens
        held = benchmark.run_trial(benchmark.entrants[1], 0, turn)
        assert held.stats[0].cached_tokens == 0
        assert runner.drafter.cache.tokens


def test_a_conversation_beyond_the_context_is_counted(engine: Engine) -> None:
    long = Task("long", "a", ("the fox", "lazy dog " * 400, "over"))
    benchmark = Bench(engine, [MethodEntrant.parse(PLAIN)], [long])
    (found,) = benchmark.rounds(1, 0)
    assert found.too_long
    assert len(found.replies) == 1
    assert one_row(rows("tiny", [found], ["a"]), PLAIN).too_long == 1


@pytest.mark.parametrize(
    ("record", "turns"),
    [
        ({"question_id": 7, "category": "writing", "turns": ["a", "b"]}, ("a", "b")),
        ({"prompt": "a", "task_id": "x/1"}, ("a",)),
        ({"prompt": ["a", "b"], "category": "writing", "prompt_id": 3}, ("a", "b")),
        ({"question": "a", "answer": "#### 4"}, ("a",)),
        ({"docstring": "a", "code": "def f(): ..."}, ("a",)),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "x"},
                            {"from": "human", "value": "b"}]}, ("a", "b")),
        ({"messages": [{"role": "user", "content": "a"}]}, ("a",)),
    ],
)  # fmt: skip
def test_every_layout_is_asked(record: Any, turns: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    file.write_text("\n".join(json.dumps(one) for one in (record, {"other": 1}, record)) + "\n")
    found = read(str(file))
    assert [task.turns for task in found.tasks] == [turns] * 2
    assert found.skipped == 1
    assert found.tasks[0].category == record.get("category", "some")
    assert [len(task.turns) for task in read(f"x={file}", limit=1, turns=1).tasks] == [1]
    assert read(f"x={file}", limit=1).tasks[0].category == record.get("category", "x")


def test_a_limit_leaves_some_of_all_categories(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    kinds = ["writing"] * 4 + ["math"] * 3 + ["rag"]
    records = [{"question_id": n, "category": kind, "turns": ["a"]} for n, kind in enumerate(kinds)]
    file.write_text("\n".join(map(json.dumps, records)))
    found = read(f"x={file}", limit=5).tasks
    assert [task.id for task in found] == ["x-0", "x-1", "x-4", "x-5", "x-7"]
    # Spec-Bench has six tasks, and MT-bench's eight categories are one of them.
    kept = read(f"spec-bench={file}").tasks
    assert [task.category for task in kept] == ["multi-turn"] * 7 + ["rag"]


def test_categories_are_asked_by_name(tmp_path: Path) -> None:
    file = tmp_path / "speed.jsonl"
    elsewhere = "FULL BENCHMARK DATA SHOULD BE FETCHED FROM THE SOURCE USING SPECDEC_BENCH"
    kinds = ["coding", "math", "coding", "stem", "coding"]
    records = [
        {"question_id": f"q{n}", "category": kind, "turns": [f"task {n}" if n else elsewhere]}
        for n, kind in enumerate(kinds)
    ]
    file.write_text("\n".join(map(json.dumps, records)))
    found = read(f"speed-bench={file}", limit=2, categories=["coding", "stem"])
    assert [(task.id, task.category) for task in found.tasks] == [
        ("speed-bench-q2", "coding"), ("speed-bench-q3", "stem"),
    ]  # fmt: skip
    assert found.skipped == 1  # its text is to be fetched elsewhere
    with pytest.raises(UsageError, match="of the category 'poems'") as caught:
        read(f"speed-bench={file}", categories=["coding", "poems"])
    assert caught.value.hint == "there are math, coding, stem"


def test_mistakes_about_prompts_are_one_line(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"other": 1}\n')
    for given, said in ((str(empty), "nothing to ask"), (" , ", "no prompts")):
        with pytest.raises(UsageError, match=said):
            read(given)


def test_the_demo_has_all_categories_early() -> None:
    assert len({task.category for task in read("demo", limit=6).tasks}) == 3
    assert len({task.id for task in read("demo").tasks}) == len(read("demo").tasks)
