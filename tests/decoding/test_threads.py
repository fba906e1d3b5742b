"""One thread or all: whichever forwards are faster with, at load and later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import tiny
import torch

from nfox.decoding import running_costs, threads
from nfox.decoding.costs import Costs
from nfox.decoding.drafter import StepTimes
from nfox.decoding.generate import Step
from nfox.decoding.running_costs import RunningCosts
from nfox.decoding.threads import ThreadChoice, use_threads
from nfox.decoding.tree import TokenTree
from nfox.decoding.verify import Verdict
from nfox.models import forwards
from nfox.models.forwards import fuse
from nfox.models.options import ModelOptions

COSTS = Costs({1: 1.0, 8: 1.2})
BUSY = {1: 1e-3, 4: 9e-3}
QUIET = {1: 1e-3, 4: 4e-4}


class Machine:
    """Four threads of which forwards take what was told; how often it was asked."""

    def __init__(self) -> None:
        self.seconds, self.asked, self.number = BUSY, 0, 4

    def set_num_threads(self, number: int) -> None:
        self.number = number

    def time_call(self, call: Callable[[], object], device: torch.device) -> float:
        self.asked += 1
        call()
        return self.seconds[self.number]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine()
    monkeypatch.setattr(torch, "set_num_threads", made.set_num_threads)
    monkeypatch.setattr(torch, "get_num_threads", lambda: made.number)
    monkeypatch.setattr(threads, "time_call", made.time_call)
    monkeypatch.setattr(threads, "_most_threads", {})
    yield made


def test_a_busy_machine_has_one_thread_and_a_quiet_one_all(machine: Machine) -> None:
    choice = use_threads(tiny.target(), None)
    assert choice is not None
    assert (machine.number, choice.most, str(choice)[:6]) == (1, 4, "1 of 4")
    assert use_threads(tiny.target(), None).most == 4, "a second model in the same process"
    machine.seconds = QUIET
    assert choice.choose()
    assert machine.number == 4
    assert not choice.choose()


def test_a_small_difference_changes_nothing(machine: Machine) -> None:
    machine.seconds = {1: 1e-3, 4: 1.05e-3}
    assert not ThreadChoice(tiny.target()).choose()
    assert machine.number == 4


def test_a_number_that_was_asked_for_stays(machine: Machine) -> None:
    assert use_threads(tiny.target(), 3) is None
    assert (machine.number, machine.asked) == (3, 0)


def test_a_large_model_is_not_tried_with_one_thread(machine: Machine) -> None:
    machine.seconds = {4: 0.5}  # with one thread it would fail
    assert not ThreadChoice(tiny.target()).choose()
    assert machine.asked <= 4


def test_an_interrupt_while_it_is_tried_leaves_the_number_and_the_choice(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice, seconds = ThreadChoice(tiny.target()), ThreadChoice._seconds

    def interrupted(self: ThreadChoice, threads: int) -> float:
        taken = seconds(self, threads)
        if threads == 1:
            raise KeyboardInterrupt
        return taken

    monkeypatch.setattr(ThreadChoice, "_seconds", interrupted)
    with pytest.raises(KeyboardInterrupt):
        choice.choose()
    assert machine.number == 4
    assert ThreadChoice(tiny.target()).most == 4


@pytest.mark.parametrize("family", ["bloom", "t5", "mamba"])
def test_other_targets_are_timed_too(family: str, machine: Machine) -> None:
    assert ThreadChoice(tiny.target(family)).choose()
    assert machine.number == 1


def steps(seconds: float) -> Iterator[Step]:
    for _ in range(8):
        times = StepTimes(0.0, seconds, 0.0, 0.0, 0.0)
        yield Step((1,), ("bonus",), TokenTree.chain(0), Verdict([0], 1, [1]), times)


def test_it_is_chosen_anew_where_steps_take_much_longer(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = partial(Costs, {1: 1e-3, 8: 2e-3})
    monkeypatch.setattr(running_costs, "measure_costs", lambda target, time_limit: measured())
    machine.seconds = QUIET
    costs = RunningCosts(COSTS, tiny.target(), use_threads(tiny.target(), None))
    assert machine.number == 4
    asked, machine.seconds = machine.asked, BUSY
    list(costs.observed(steps(1.1)))
    costs.update()
    assert machine.asked == asked, "as fast as ever"
    list(costs.observed(steps(9.0)))
    assert costs.update() == measured()
    assert machine.number == 1
    machine.seconds = QUIET
    for _ in range(3):  # on the second occasion it is asked again whether all are faster now
        list(costs.observed(steps(1e-3)))
        costs.update()
    assert machine.number == 4
    assert costs.at_load == COSTS


def test_a_small_model_is_tried_with_one_thread(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    target = tiny.target()
    monkeypatch.setattr(target, "fuse", lambda native: tried.append(machine.number))
    for options in (ModelOptions(), ModelOptions(threads=4)):
        fuse("tiny", target, options, lambda stage: None)
    monkeypatch.setattr(forwards, "_FEW_BYTES", 1)
    fuse("tiny", target, ModelOptions(), lambda stage: None)
    assert tried == [1, 4, 4]
    with pytest.raises(ZeroDivisionError), threads.one_thread():
        assert machine.number == 1
        1 / 0  # noqa: B018
    assert machine.number == 4
