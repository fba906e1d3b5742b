"""Every figure of the benchmark has a definition; here it is computed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import folder
import pytest
from typer.testing import CliRunner, Result

from nfox import Chat, ModelOptions, Settings, load
from nfox.cli.app import app
from nfox.drafters import names, plain
from nfox.errors import UsageError
from nfox.eval.figures import ALL, EXPLAIN, rows, simulation, speedups
from nfox.eval.tasks import read
from nfox.eval.trials import Bench, Divergence, Entrant, Task, Trial
from nfox.stats import Stats

PLAIN = plain()


def stats(lengths: list[int], *, seconds: float, **more: Any) -> Stats:
    """Of a reply whose steps gave so many tokens each."""
    made = Stats(steps=len(lengths), tokens=sum(lengths), lengths=lengths, seconds=seconds)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def trial(who: str, task: int, turn: int, *replies: Stats, ids: Any = None, **more: Any) -> Trial:
    return Trial(who, task, turn, ids or [[1, 2]], list(replies), more.pop("memory", 0), **more)


def one_row(found: list[dict[str, Any]], who: str, kind: str = ALL) -> dict[str, Any]:
    (row,) = [row for row in found if row["method"] == who and row["category"] == kind]
    return row


def test_the_figures_of_a_method_by_hand() -> None:
    """Two prompts, the second with two turns: all tokens over all seconds, not means of means."""
    drafting = {"draft_seconds": 0.2, "target_seconds": 0.5, "verify_seconds": 0.1}
    trials = [
        trial(PLAIN, 0, 0, stats([1] * 6, seconds=3.0), memory=10_000_000),
        trial("fast", 0, 0, stats([3, 2, 1], seconds=1.0, **drafting, cache_seconds=0.05,
                                  tried=[3, 2], reached=[2, 1], first_token_seconds=0.4)),
        trial(PLAIN, 1, 0, stats([1] * 4, seconds=2.0), stats([1], seconds=0.5)),
        trial("fast", 1, 0, stats([4], seconds=0.5, tried=[1], reached=[1],
                                  first_token_seconds=0.2),
              stats([1], seconds=0.5, first_token_seconds=0.3), ids=[[1, 2], [3]],
              memory=20_000_000),
    ]  # fmt: skip
    found = one_row(rows(trials, ["a", "a"]), "fast")
    assert (found["prompts"], found["tokens"], found["steps"]) == (2, 11, 5)
    assert found["tau"] == pytest.approx(11 / 5)
    assert found["tokens_per_second"] == pytest.approx(11 / 2.0)
    assert found["speedup"] == pytest.approx((11 / 2.0) / (11 / 5.5))
    assert found["efficiency"] == pytest.approx(found["speedup"] / (11 / 5))
    assert found["ttft_ms"] == pytest.approx(300)
    assert found["identical"] == 0.5  # the second conversation has another reply
    assert found["accept_by_depth"] == pytest.approx([3 / 4, 1 / 2])
    assert found["peak_memory_mb"] == 20
    parts = {"draft": 40, "target": 100, "verify": 20, "cache": 10, "host": 230}
    assert found["time"] == pytest.approx(parts)  # ms of each of 5 steps
    base = one_row(rows(trials, ["a", "a"]), PLAIN)
    assert (base["speedup"], base["identical"], base["tau"]) == (1, 1, 1)
    assert base["accept_by_depth"] == []


def test_categories_are_reported_apart_and_together() -> None:
    trials = [
        trial(who, task, 0, stats([1, 1], seconds=(1 + task) / (2 if who == "fast" else 1)))
        for task in range(3)
        for who in (PLAIN, "fast")
    ]
    parted = [Divergence("fast", 1, 0, 4, 0.5), Divergence("fast", 2, 0, 1, 0.25)]
    found = rows(trials, ["x", "x", "y"], parted)
    assert [row["category"] for row in found] == [ALL, ALL, "x", "x", "y", "y"]
    assert [one_row(found, "fast", kind)["prompts"] for kind in (ALL, "x", "y")] == [3, 2, 1]
    assert [one_row(found, "fast", kind)["gap"] for kind in (ALL, "x", "y")] == [0.5, 0.5, 0.25]
    assert [one_row(found, PLAIN, kind)["gap"] for kind in (ALL, "x", "y")] == [0, 0, 0]
    assert all(one_row(found, "fast", kind)["speedup"] == 2 for kind in (ALL, "x", "y"))


def test_nothing_drafted_nothing_said_and_too_long() -> None:
    trials = [
        trial(PLAIN, 0, 0, stats([1], seconds=0.1)),
        trial("slow", 0, 0, stats([1], seconds=0.2)),
        trial(PLAIN, 1, 0, ids=[], too_long=True),
        trial("slow", 1, 0, ids=[], too_long=True),
    ]
    found = one_row(rows(trials, ["a", "a"]), "slow")
    assert (found["tau"], found["speedup"], found["too_long"]) == (1, 0.5, 1)
    empty = one_row(rows(trials[2:], ["a", "a"]), "slow")
    assert (empty["tokens"], empty["tau"], empty["speedup"]) == (0, 0, 0)


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


@pytest.fixture(scope="module")
def chat() -> Chat:
    loading = ModelOptions(dtype="float32", offline=True)
    return load(str(folder.llama()), loading=loading, settings=Settings(max_new_tokens=12))


TASKS = [
    Task("one", "a", ("the quick brown fox",)),
    Task("two", "b", ("over the lazy", "dog, and again", "the fox")),
]


def bench(chat: Chat, *methods: str) -> Bench:
    return Bench(chat, [Entrant.parse(name) for name in (PLAIN, *methods)], TASKS)


def test_rounds_are_interleaved_and_conversations_are_equal(chat: Chat) -> None:
    told: list[tuple[int, int]] = []
    made = bench(chat, "jacobi:window=3", "lookup")
    trials = list(made.rounds(2, 1, lambda *done: told.append(done)))
    order = [(one.turn, one.task, one.entrant) for one in trials]
    entrants = (PLAIN, "jacobi:window=3", "lookup")
    assert order == [(turn, task, who) for turn in (0, 1) for task in (0, 1) for who in entrants]
    assert told == [(done, 12) for done in range(1, 13)]
    for one in trials:
        base = next(t for t in trials if t.task == one.task)
        assert one.replies == base.replies  # in float32
        assert made.divergence(one, base) is None
        assert len(one.replies) == len(TASKS[one.task].turns)
        assert one.memory > 0
        assert all(reply.tokens > 0 for reply in one.stats)
    # Later turns read only what is new.
    later = trials[3].stats[1:]
    assert all(0 < reply.cached_tokens < reply.prompt_tokens for reply in later)
    assert {row["identical"] for row in rows(trials, ["a", "b"])} == {1.0}


@pytest.mark.parametrize("gamma", [1, 4])
def test_a_simulated_acceptance_gives_the_tau_of_the_formula(chat: Chat, gamma: int) -> None:
    """Within 2 % over 20,000 tokens, and without changing one of them."""
    chat.settings = Settings(max_new_tokens=400)
    tasks = [Task(f"{n}", "a", (f"{n} quick foxes", "and a dog")) for n in range(12)]
    rates = (0.0, 0.6, 0.8, 1.0)
    simulated = [Entrant.simulated(rate, gamma) for rate in rates]
    made = Bench(chat, [Entrant.parse(PLAIN), *simulated], tasks)
    chat.stop_ids, stops = frozenset(), chat.stop_ids
    try:
        trials = list(made.rounds(1, 0))
    finally:
        chat.stop_ids, chat.settings = stops, Settings(max_new_tokens=12)
    found = rows(trials, ["a"] * len(tasks))
    assert {row["identical"] for row in found} == {1.0}
    for one in simulation(made.entrants, found, None):
        assert one["tau"] == pytest.approx(one["expected_tau"], rel=0.03)


def test_where_replies_part_is_found_with_its_gap(chat: Chat) -> None:
    made = bench(chat)
    (base,) = (one for one in made.rounds(1, 0) if one.task == 1)
    changed = [list(ids) for ids in base.replies]
    changed[1][2] = (changed[1][2] + 1) % 300
    found = made.divergence(Trial("x", 1, 0, changed, [], 0), base)
    assert found is not None
    assert (found.reply, found.token) == (1, 2)
    assert found.gap > 0  # the plain one is the likeliest
    cut = [*base.replies[:2], base.replies[2][:5]]
    found = made.divergence(Trial("x", 1, 0, cut, [], 0), base)
    assert found is not None
    assert (found.reply, found.token) == (2, 5)


def test_a_conversation_beyond_the_context_is_counted(chat: Chat) -> None:
    long = Task("long", "a", ("the fox", "lazy dog " * 400, "over"))
    made = Bench(chat, [Entrant.parse(PLAIN)], [long])
    (found,) = made.rounds(1, 0)
    assert found.too_long
    assert len(found.replies) == 1
    assert one_row(rows([found], ["a"]), PLAIN)["too_long"] == 1


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
    assert [task.turns for task in found.kept] == [turns] * 2
    assert found.skipped == 1
    assert found.kept[0].category == record.get("category", "some")
    assert [len(task.turns) for task in read(f"x={file}", limit=1, turns=1).kept] == [1]
    assert read(f"x={file}", limit=1).kept[0].category == record.get("category", "x")


def test_mistakes_about_prompts_are_one_line(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"other": 1}\n')
    for given, said in ((str(empty), "nothing to ask"), (" , ", "no prompts")):
        with pytest.raises(UsageError, match=said):
            read(given)


def test_the_demo_has_all_categories_early() -> None:
    assert len({task.category for task in read("demo", limit=6).kept}) == 3
    assert len({task.id for task in read("demo").kept}) == len(read("demo").kept)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def test_the_command_writes_what_is_documented(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    done = run(
        "--model", folder.llama(), "--dtype", "float32", "--methods", "lookup,jacobi:window=2",
        "--limit", 2, "--rounds", 1, "--max-new-tokens", 8, "--json", out, "--prompts", "demo",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    said = json.loads(out.read_text())
    assert said["schema"] == "nfox.bench/1"
    assert {"device", "dtype", "versions", "command", "commit", "threads"} <= said["machine"].keys()
    assert said["settings"]["max_new_tokens"] == 8
    assert [row["method"] for row in said["rows"]][:3] == [PLAIN, "lookup", "jacobi:window=2"]
    for row in said["rows"]:
        assert set(EXPLAIN) <= row.keys()
        assert row["identical"] == 1
        assert row["speedup_low"] <= row["speedup"] <= row["speedup_high"]
    assert said["divergences"] == []
    for row in said["rows"][:3]:
        assert f"{row['tau']:.2f}" in done.stdout


def test_all_are_the_methods_that_are_ready() -> None:
    done = run("--model", folder.llama(), "--limit", 1, "--rounds", 1, "--max-new-tokens", 2,
               "--warmup", 0)  # fmt: skip
    assert done.exit_code == 0, done.stderr
    said = [line.split()[0] for line in done.stdout.splitlines() if line.strip()]
    ready = [name for name in names() if name in said]
    assert set(ready) == {PLAIN, "jacobi", "lookup"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "warp"], "no method 'warp'"),
        (["--methods", "lookup:colour=1"], "no option 'colour'"),
        (["--methods", "medusa"], "needs trained heads"),
        (["--json", "/nowhere/at/all.json"], "no folder"),
        (["--prompts", "nothing.jsonl"], "nothing.jsonl"),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str) -> None:
    done = run("--model", folder.llama(), "--offline", "--limit", 1, *words)
    assert done.exit_code in (2, 3), done.output
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_every_figure_is_explained() -> None:
    done = run("--explain")
    assert done.exit_code == 0
    assert all(name in done.stdout and meaning in done.stdout for name, meaning in EXPLAIN.items())
