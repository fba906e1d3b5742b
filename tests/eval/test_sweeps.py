"""One benchmark over several values: of a method's option, of the temperature, of the context."""

from __future__ import annotations

import folder
import pytest

from nfox import Engine, ModelOptions, Settings, load
from nfox.drafters import plain_method
from nfox.errors import UsageError
from nfox.eval.bench.divergence import divergences
from nfox.eval.bench.entrants import MethodEntrant, PeerEntrant, SimulatedEntrant
from nfox.eval.bench.sweeps import Sweep
from nfox.eval.bench.trials import Bench, Task

PLAIN = MethodEntrant.parse(plain_method())


@pytest.fixture(scope="module")
def engine() -> Engine:
    loading = ModelOptions(dtype="float32", offline=True)
    return load(str(folder.llama()), loading=loading, settings=Settings(max_new_tokens=12))


TASKS = [
    Task("one", "a", ("the quick brown fox",)),
    Task("two", "b", ("over the lazy dog", "and again")),
]


def test_an_option_becomes_entrants() -> None:
    entrants = [PLAIN, MethodEntrant.parse("jacobi"), PeerEntrant("hf")]
    found = Sweep.parse("window = 2, 4").entrants(entrants)
    names = [PLAIN.name, "jacobi:window=2", "jacobi:window=4", "hf"]
    assert [one.name for one in found] == names
    assert found[1].options == {"window": "2"}
    # Where it is set already, it stays; several sweeps are combined.
    more = Sweep.parse("pool=0,3").entrants(found)
    assert "jacobi:window=4:pool=3" in [one.name for one in more]
    again = Sweep.parse("window=9").entrants([*found, MethodEntrant.parse("jacobi")])
    assert [one.name for one in again] == [*names, "jacobi:window=9"]


def test_gamma_is_one_of_simulated_drafters_too() -> None:
    found = Sweep.parse("gamma=2,3").entrants([PLAIN, SimulatedEntrant.of(0.5, 4)])
    assert [one.rate.gamma for one in found[1:]] == [2, 3]
    assert len({one.name for one in found}) == 3


def test_a_temperature_becomes_a_category_of_tasks(engine: Engine) -> None:
    sweep = Sweep.parse("temperature=0,0.7")
    assert sweep.entrants([PLAIN]) == [PLAIN]
    tasks, left_out = sweep.tasks(TASKS, engine)
    assert left_out == 0
    assert [task.category for task in tasks] == ["temperature 0"] * 2 + ["temperature 0.7"] * 2
    assert len({task.id for task in tasks}) == 4
    benchmark = Bench(engine, [PLAIN, MethodEntrant.parse("lookup")], tasks)
    trials = list(benchmark.rounds(1, 0))
    assert divergences(benchmark, trials) == []  # at each temperature the same text, whoever drafts
    said = {tasks[trial.task].id: trial.replies for trial in trials}
    assert said["one, temperature 0"] != said["one, temperature 0.7"]
    assert engine.settings.sampling.temperature == 0  # as before


def test_a_context_is_filled_up_with_other_prompts(engine: Engine) -> None:
    tasks, left_out = Sweep.parse("context=16,100,limit").tasks(TASKS, engine)
    lengths = {task.id: len(engine.request(task.turns[0]).prompt.ids) for task in tasks}
    assert left_out + len(tasks) == 6
    assert left_out == sum("context 16" not in task.category for task in TASKS)  # they are longer
    for name, task in zip(lengths, tasks, strict=True):
        wanted = int(task.category.removeprefix("context "))
        assert wanted - 8 <= lengths[name] <= wanted
    assert {task.category for task in tasks} == {"context 100", f"context {512 - 12}"}
    assert tasks[0].turns[0].endswith("the quick brown fox")
    assert "lazy" in tasks[0].turns[0]
    assert tasks[1].turns[1:] == ("and again",)


@pytest.mark.parametrize("text", ["gamma", "gamma=", "=1", "gamma= , "])
def test_what_is_no_sweep_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="NAME=VALUE"):
        Sweep.parse(text)


def test_values_that_do_not_fit_are_refused(engine: Engine) -> None:
    entrants = [PLAIN, MethodEntrant.parse("lookup")]
    with pytest.raises(UsageError, match="no method that is compared"):
        Sweep.parse("window=1").entrants(entrants)
    with pytest.raises(UsageError, match="ngram=x"):
        Sweep.parse("ngram=x").entrants(entrants)
    with pytest.raises(UsageError, match="no temperature"):
        Sweep.parse("temperature=warm").tasks(TASKS, engine)
    with pytest.raises(UsageError, match="-1"):
        Sweep.parse("temperature=-1").tasks(TASKS, engine)
    with pytest.raises(UsageError, match="no number of tokens"):
        Sweep.parse("context=long").tasks(TASKS, engine)
    with pytest.raises(UsageError, match="holds 512 tokens, 12 of them for the reply"):
        Sweep.parse("context=501").tasks(TASKS, engine)
