"""Runs of a benchmark: every prompt with every method, in turn, round after round.

So a machine that drifts, warms up or does something else meanwhile hurts all methods alike.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf, log

import torch

from nfox.decoding.cache import common_prefix
from nfox.decoding.stats import Stats
from nfox.decoding.tree import TokenTree
from nfox.engine import Engine
from nfox.errors import ContextError, NfoxError, UsageError
from nfox.eval.bench.entrants import REPLIES_PER_TASK, Entrant, Runner, Simulated, runner
from nfox.models.memory import in_use
from nfox.reply import Settings
from nfox.text.messages import Message

_FAR = 1000.0  # what can never be drawn is so much less likely

Key = tuple[str, int, int]
"""Of a trial: entrant, task, round."""


@dataclass(frozen=True)
class Task:
    """A conversation to hold.

    Args:
        id: names it.
        category: tasks of one kind are also reported together.
        turns: what the person says, one after the other.
        temperature: that its replies are drawn at; None for that of all.
    """

    id: str
    category: str
    turns: tuple[str, ...]
    temperature: float | None = None


@dataclass(frozen=True)
class Trial:
    """One task, held once with one method.

    Args:
        entrant: name of the method, with its options.
        task: index of the task.
        turn: which round.
        replies: token ids of every reply.
        stats: of every reply.
        memory: bytes in use after it, on a GPU the most that were meanwhile.
        too_long: whether the conversation grew longer than the context.
    """

    entrant: str
    task: int
    turn: int
    replies: list[list[int]]
    stats: list[Stats]
    memory: int
    too_long: bool = False


@dataclass(frozen=True)
class Divergence:
    """Where a conversation and the plain one part.

    Args:
        entrant: whose.
        task: index of the task.
        reply: which reply, from 0.
        token: which of its tokens, from 0.
        gap: by how much a plain step scores its own token higher than the other one, by logits
            with their penalties and noise. Rounded
            logits of a wide forward differ a little from a plain step's, so that near-ties fall
            either way; a large gap is an error.
    """

    entrant: str
    task: int
    reply: int
    token: int
    gap: float


class Bench:
    """Holds conversations with all entrants.

    Args:
        engine: whose model, template and settings are used.
        entrants: the plain one first.
        tasks: conversations.

    Attributes:
        entrants: those that can answer.
        missing: why the others cannot.
        known: prompts with the plain replies of tasks that were held.
        settings: of all replies, but for the temperature that a task has of its own.
    """

    def __init__(self, engine: Engine, entrants: Sequence[Entrant], tasks: Sequence[Task]) -> None:
        self.engine = engine
        self.tasks = tasks
        self.runners: dict[str, Runner] = {}
        self.missing: dict[str, str] = {}
        for entrant in entrants:
            try:
                self.runners[entrant.name] = runner(entrant, engine)
            except UsageError:
                raise
            except NfoxError as error:
                self.missing[entrant.name] = error.message
        self.entrants = [one for one in entrants if one.name in self.runners]
        self.settings = engine.settings
        self.known: dict[int, list[list[int]]] = {}

    def rounds(
        self,
        rounds: int,
        warmup: int = 1,
        tell: Callable[[int, int], None] = lambda done, of: None,
        held: Collection[Key] = (),
    ) -> Iterator[Trial]:
        """Hold every conversation with every entrant, so many times.

        Args:
            rounds: how often.
            warmup: tasks that are held before, and not counted.
            tell: told how many trials are done, and of how many.
            held: trials that are not needed any more.
        """
        due = [
            (turn, task, entrant)
            for turn in range(rounds)
            for task in range(len(self.tasks))
            for entrant in self._from(turn + task)  # nobody always follows the same one
        ]
        left = [(turn, task, one) for turn, task, one in due if (one.name, task, turn) not in held]
        for task in range(min(warmup, len(self.tasks)) if left else 0):
            for entrant in self.entrants:
                self.hold(entrant, task, -1)
        for done, (turn, task, entrant) in enumerate(left, len(due) - len(left) + 1):
            if entrant.kind == "simulated" and task not in self.known:
                self.hold(self.entrants[0], task, -1)
            yield self.hold(entrant, task, turn)
            tell(done, len(due))

    def _from(self, place: int) -> Sequence[Entrant]:
        """Return all entrants, another one first."""
        first = place % len(self.entrants)
        return [*self.entrants[first:], *self.entrants[:first]]

    def hold(self, entrant: Entrant, task: int, turn: int) -> Trial:
        """Hold a conversation from its beginning, with nothing read."""
        engine, who = self.engine, self.runners[entrant.name]
        who.begin()
        if isinstance(who, Simulated):
            who.known = self.known[task]
        settings = self._settings_of(self.tasks[task])
        device = engine.model.target.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        trial = Trial(entrant.name, task, turn, [], [], 0)
        messages, texts, too_long = list[Message](), list[list[int]](), False
        for number, said in enumerate(self.tasks[task].turns, REPLIES_PER_TASK * task):
            messages.append(Message("user", said))
            try:
                request = engine.request(messages, settings, number=number)
            except ContextError:
                too_long = True
                break
            reply = who.reply(request)
            texts.append([*request.prompt.ids, *reply.ids])
            trial.replies.append(reply.ids)
            trial.stats.append(reply.stats)
            messages.append(reply.message())
        if entrant == self.entrants[0]:
            self.known[task] = texts
        return replace(trial, memory=in_use(device), too_long=too_long)

    def _settings_of(self, task: Task) -> Settings:
        given = self.settings
        if task.temperature is None:
            return given
        return replace(given, sampling=replace(given.sampling, temperature=task.temperature))

    def close(self) -> None:
        """Take away what peers made."""
        for who in self.runners.values():
            who.close()

    def parted(self, trials: Iterable[Trial]) -> list[Divergence]:
        """Return where conversations first differ from the plain ones, one for each task.

        What is drawn with other random numbers is another text, so it is not looked at: that of
        peers, and of rules other than `exact`.
        """
        peers = {one.name for one in self.entrants if one.kind == "peer"}
        trials = list(trials)
        plain = {(t.task, t.turn): t for t in trials if t.entrant == self.entrants[0].name}
        found: dict[tuple[str, int], Divergence] = {}
        for trial in trials:
            drawn = not self._settings_of(self.tasks[trial.task]).sampling.greedy
            key = trial.entrant, trial.task
            others = trial.entrant in peers or self.settings.accept != "exact"
            if key in found or (drawn and others):
                continue
            where = self.divergence(trial, plain[trial.task, trial.turn])
            if where is not None:
                found[key] = where
        return list(found.values())

    def divergence(self, trial: Trial, plain: Trial) -> Divergence | None:
        """Say where a trial and the plain one of its task part; None if nowhere."""
        pairs = enumerate(zip(trial.replies, plain.replies, strict=False))
        differing = next(((reply, a, b) for reply, (a, b) in pairs if a != b), None)
        if differing is None:
            return None
        reply, mine, theirs = differing
        token = common_prefix(mine, theirs)
        gap = self._gap(trial, reply, token, mine, theirs)
        return Divergence(trial.entrant, trial.task, reply, token, gap)

    def _gap(
        self, trial: Trial, reply: int, token: int, mine: Sequence[int], theirs: Sequence[int]
    ) -> float:
        """Return by how much a plain step scores its own token higher at this place, penalties and
        noise included: what it chose by.
        """
        engine, messages = self.engine, list[Message]()
        for said, ids in zip(self.tasks[trial.task].turns, trial.replies[:reply], strict=False):
            text = engine.model.tokenizer.decode(ids, skip_special_tokens=True)
            messages += [Message("user", said), Message("assistant", text, tuple(ids))]
        messages.append(Message("user", self.tasks[trial.task].turns[reply]))
        prompt = engine.encode(messages)
        ids = [*prompt.ids, *theirs[:token]]
        target = engine.model.target
        cache = target.new_cache()
        cache.reuse(ids, prompt.encoder_ids)
        target.read(ids[:-1], cache)
        logits, _ = target.score(TokenTree.chain(ids[-1]), cache)
        rule = self._settings_of(self.tasks[trial.task]).rule(REPLIES_PER_TASK * trial.task + reply)
        drawn = rule.draw(logits[0].double(), ids, target.vocabulary_size)
        score = {token: log(chance) for token, chance in zip(*drawn[:2], strict=True)}
        end = max(engine.stop_ids, key=lambda stop: score.get(stop, -inf), default=0)
        own, other = ([*reply[token : token + 1], end][0] for reply in (theirs, mine))
        return score.get(own, -inf) - score.get(other, -_FAR)
