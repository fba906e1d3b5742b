"""Trials of a benchmark: every task with every entrant, in turn, round after round.

So a machine that drifts, warms up or does something else meanwhile hurts all entrants alike.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from nfox.decoding.stats import Stats
from nfox.engine import Engine
from nfox.errors import ContextError, NfoxError, UsageError
from nfox.eval.bench.entrants import Entrant
from nfox.eval.bench.runner import REPLIES_PER_TASK, Runner
from nfox.eval.peers.base import PeerError
from nfox.reply import Settings
from nfox.text.messages import Message

Key = tuple[str, int, int]
"""What a trial is of: its entrant, its task and its round."""

_WARMUP = -1  # the round of a trial that is not counted


@dataclass(frozen=True)
class Task:
    """A conversation to hold.

    Args:
        id: its name.
        category: tasks of one category are also reported together.
        turns: what the person says, one turn after the other.
        temperature: at which its replies are drawn; None for that of the benchmark.
    """

    id: str
    category: str
    turns: tuple[str, ...]
    temperature: float | None = None

    def settings(self, settings: Settings) -> Settings:
        """Return the settings of its replies.

        Args:
            settings: those of the benchmark.
        """
        if self.temperature is None:
            return settings
        return settings.changed(temperature=self.temperature)


@dataclass(frozen=True)
class Trial:
    """One task, run once with one entrant.

    Args:
        entrant: the entrant's name.
        task: the task's index.
        round: the round's index.
        replies: the token ids of every reply.
        stats: of every reply.
        memory: bytes that its process used after it, on a GPU the most that it used meanwhile.
        too_long: whether the conversation grew longer than the context.
    """

    entrant: str
    task: int
    round: int
    replies: list[list[int]]
    stats: list[Stats]
    memory: int
    too_long: bool = False

    @property
    def key(self) -> Key:
        """What the trial is of: its entrant, its task and its round."""
        return self.entrant, self.task, self.round


class Bench:
    """Runs the trials of a benchmark.

    Args:
        engine: the engine whose model, template and settings hold.
        entrants: the entrants, the plain one first.
        tasks: the conversations.

    Attributes:
        runners: of the entrants that can answer, by their names.
        entrants: those that can answer.
        missing: why the others cannot, or could not go on, by their names.
        settings: of all replies, but for the temperature that a task has of its own.
        plain_texts: of the tasks that were run plainly, by their indices: the token ids of prompt
            and reply, for each reply.
    """

    def __init__(self, engine: Engine, entrants: Sequence[Entrant], tasks: Sequence[Task]) -> None:
        self.engine = engine
        self.tasks = tasks
        self.runners: dict[str, Runner] = {}
        self.missing: dict[str, str] = {}
        self._folder = TemporaryDirectory(prefix="nfox-", ignore_cleanup_errors=True)
        try:
            self._make_runners(entrants)
        except BaseException:
            self.close()
            raise
        self._folder.cleanup()  # so that a kill leaves nothing; on Windows `close` does it
        self.entrants = [entrant for entrant in entrants if entrant.name in self.runners]
        self.settings = engine.settings
        self.plain_texts: dict[int, list[list[int]]] = {}

    def _make_runners(self, entrants: Sequence[Entrant]) -> None:
        for entrant in entrants:
            try:
                self.runners[entrant.name] = entrant.runner(self.engine, Path(self._folder.name))
            except UsageError:
                raise
            except NfoxError as error:
                self.missing[entrant.name] = error.message

    def rounds(
        self,
        rounds: int,
        warmup: int = 1,
        on_trial: Callable[[int, int], None] = lambda done, total: None,
        finished: Collection[Key] = (),
    ) -> Iterator[Trial]:
        """Run every task with every entrant, so many times. A peer that dies is missing from then
        on.

        Args:
            rounds: how many times.
            warmup: the number of tasks that are run before, and not counted.
            on_trial: called after a trial with the number of trials that are done, and of all.
            finished: the keys of trials that need not be run any more.
        """
        order = [*self.entrants, *self.entrants]
        count = len(self.entrants)
        trials = [
            (entrant, task, round)
            for round in range(rounds)
            for task in range(len(self.tasks))
            # Another entrant begins every time, so that nobody always follows the same one.
            for entrant in order[(round + task) % count :][:count]
        ]
        left = [trial for trial in trials if (trial[0].name, *trial[1:]) not in finished]
        for task in range(min(warmup, len(self.tasks)) if left else 0):
            for entrant in self.entrants.copy():
                self._tried(entrant, task, _WARMUP)
        for done, (entrant, task, round) in enumerate(left, len(trials) - len(left) + 1):
            if entrant.replays and task not in self.plain_texts:
                self.run_trial(self.entrants[0], task, _WARMUP)
            trial = self._tried(entrant, task, round)
            if trial is not None:
                yield trial
            on_trial(done, len(trials))

    def _tried(self, entrant: Entrant, task: int, round: int) -> Trial | None:
        """Run a trial; None if its entrant is a peer that cannot go on."""
        if entrant.name in self.missing:
            return None
        try:
            return self.run_trial(entrant, task, round)
        except PeerError as error:
            self.missing[entrant.name] = error.message
            self.entrants.remove(entrant)
            self.runners.pop(entrant.name).close()
            return None

    def run_trial(
        self, entrant: Entrant, task: int, round: int = _WARMUP, settings: Settings | None = None
    ) -> Trial:
        """Hold a conversation from its beginning, with nothing read.

        Args:
            entrant: one of those that can answer.
            task: the task's index.
            round: the round's index.
            settings: other settings than those of the benchmark.
        """
        engine, runner = self.engine, self.runners[entrant.name]
        runner.begin(self.plain_texts.get(task, ()))
        settings = self.tasks[task].settings(settings or self.settings)
        device = engine.model.target.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        trial = Trial(entrant.name, task, round, [], [], 0)
        messages, texts, too_long = list[Message](), list[list[int]](), False
        for number, turn in enumerate(self.tasks[task].turns, REPLIES_PER_TASK * task):
            messages.append(Message("user", turn))
            try:
                request = engine.request(messages, settings, number=number)
            except ContextError:
                too_long = True
                break
            reply = runner.answer(request)
            texts.append([*request.prompt.ids, *reply.ids])
            trial.replies.append(reply.ids)
            trial.stats.append(reply.stats)
            messages.append(reply.message())
        if entrant == self.entrants[0]:
            self.plain_texts[task] = texts
        return replace(trial, memory=runner.memory(), too_long=too_long)

    def close(self) -> None:
        """Close all runners, which ends the processes of peers."""
        for runner in self.runners.values():
            runner.close()
        self._folder.cleanup()
