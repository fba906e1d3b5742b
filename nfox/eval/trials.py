"""Runs of a benchmark: every prompt with every method, in turn, round after round.

So a machine that drifts, warms up or does something else meanwhile hurts all methods alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from nfox.cache import common_prefix
from nfox.chat import Chat
from nfox.conversation import Message
from nfox.drafters.base import Parts
from nfox.errors import ContextError
from nfox.eval.oracle import Oracle, OracleOptions
from nfox.memory import in_use
from nfox.stats import Stats
from nfox.tree import TokenTree


@dataclass(frozen=True)
class Task:
    """A conversation to hold.

    Args:
        id: names it.
        category: tasks of one kind are also reported together.
        turns: what the person says, one after the other.
    """

    id: str
    category: str
    turns: tuple[str, ...]


@dataclass(frozen=True)
class Entrant:
    """A method with its options, as it was typed: `spec` or `spec:gamma=4:branches=1`.

    Args:
        name: as typed.
        method: its name.
        options: of the method.
        rate: at which a simulated method is right; None for a real one.
    """

    name: str
    method: str = ""
    options: dict[str, str] = field(default_factory=dict)
    rate: OracleOptions | None = None

    @classmethod
    def parse(cls, text: str) -> Entrant:
        """Read what was typed."""
        method, *options = text.strip().split(":")
        pairs = (option.partition("=") for option in options)
        return cls(text.strip(), method, {name: value for name, _, value in pairs})

    @classmethod
    def simulated(cls, acceptance: float, gamma: int) -> Entrant:
        """Return one that is right at a given rate, whatever the model.

        Raises:
            UsageError: if that is no rate, or nothing would be drafted.
        """
        return cls(f"acceptance {acceptance:g}", rate=OracleOptions(acceptance, gamma))


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
        gap: by how much a plain step scores its own token higher than the other one. Rounded
            logits of a wide forward differ a little from a plain step's, so that near-ties fall
            either way; a large gap is an error.
    """

    entrant: str
    task: int
    reply: int
    token: int
    gap: float


class Bench:
    """Holds conversations with all methods.

    Args:
        chat: whose model, template and settings are used.
        entrants: the plain one first.
        tasks: conversations.
    """

    def __init__(self, chat: Chat, entrants: Sequence[Entrant], tasks: Sequence[Task]) -> None:
        self.chat = chat
        self.entrants = entrants
        self.tasks = tasks
        self.drafters: dict[str, Any] = {}
        self._known: dict[int, list[list[int]]] = {}  # prompts and plain replies of tasks
        for entrant in entrants:
            if entrant.rate is None:
                chat.use(entrant.method, entrant.options)
                self.drafters[entrant.name] = (chat.method, chat.drafter)
            else:
                made = Oracle.build(Parts(chat.model), entrant.rate)
                self.drafters[entrant.name] = (entrant.name, made)

    def rounds(
        self, rounds: int, warmup: int = 1, tell: Callable[[int, int], None] = lambda done, of: None
    ) -> Iterator[Trial]:
        """Hold every conversation with every method, so many times.

        Args:
            rounds: how often.
            warmup: tasks that are held before, and not counted.
            tell: told how many trials are done, and of how many.
        """
        for task in range(min(warmup, len(self.tasks))):
            for entrant in self.entrants:
                self.hold(entrant, task, -1)
        done, of = 0, rounds * len(self.tasks) * len(self.entrants)
        for turn in range(rounds):
            for task in range(len(self.tasks)):
                for entrant in self.entrants:
                    yield self.hold(entrant, task, turn)
                    done += 1
                    tell(done, of)

    def hold(self, entrant: Entrant, task: int, turn: int) -> Trial:
        """Hold a conversation from its beginning, with an empty cache."""
        chat = self.chat
        chat.method, chat.drafter = self.drafters[entrant.name]
        chat.drafter.truncate(0)
        if isinstance(chat.drafter, Oracle):
            chat.drafter.know(self._known[task])
        texts: list[list[int]] = []
        chat.cache = chat.model.target.new_cache()
        chat.replies = 1024 * task  # the noise depends on the task, not on what came before
        messages, too_long = list[Message](), False
        trial = Trial(entrant.name, task, turn, [], [], 0)
        device = chat.model.target.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        for said in self.tasks[task].turns:
            messages.append(Message("user", said))
            try:
                for _ in chat.updates(messages):
                    pass
            except ContextError:
                too_long = True
                break
            texts.append([*chat.encode(messages)[0], *chat.reply.ids])
            trial.replies.append(chat.reply.ids)
            trial.stats.append(chat.reply.stats)
            messages.append(chat.reply.message())
        if entrant == self.entrants[0]:
            self._known[task] = texts
        return replace(trial, memory=in_use(device), too_long=too_long)

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
        """Return by how much a plain step scores its own token higher at this place."""
        chat, messages = self.chat, list[Message]()
        for said, ids in zip(self.tasks[trial.task].turns, trial.replies[:reply], strict=False):
            text = chat.model.tokenizer.decode(ids, skip_special_tokens=True)
            messages += [Message("user", said), Message("assistant", text, tuple(ids))]
        messages.append(Message("user", self.tasks[trial.task].turns[reply]))
        prompt, source = chat.encode(messages)
        ids = [*prompt, *theirs[:token]]
        target = chat.model.target
        cache = target.new_cache()
        cache.reuse(ids, source)
        target.read(ids[:-1], cache)
        logits, _ = target.score(TokenTree.chain(ids[-1]), cache)
        end = max(chat.stop_ids, key=lambda stop: float(logits[0, stop]), default=0)
        own, other = ([*reply[token : token + 1], end][0] for reply in (theirs, mine))
        return float(logits[0, own] - logits[0, other])
