"""One request answered by several methods, each with the times of its steps.

They answer one after the other, since they share the machine; shown together at the pace that was
measured, they race.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from nfox.decoding.cache import common_prefix
from nfox.decoding.stats import Stats
from nfox.drafters import plain_method
from nfox.drafters.common.method import Method
from nfox.engine import Engine
from nfox.plain_reply import Parting, find_parting
from nfox.reply import Reply, Request
from nfox.reply_stream import ReplyStream
from nfox.text.pieces import Piece


@dataclass(frozen=True)
class Moment:
    """What a run had come to after one of its steps.

    Args:
        seconds: since the prompt was read.
        pieces: text that the step made certain.
        tokens: of the reply so far.
        tokens_per_second: the decoding speed so far.
        tau: tokens per step so far.
    """

    seconds: float
    pieces: tuple[Piece, ...]
    tokens: int
    tokens_per_second: float
    tau: float


@dataclass(frozen=True)
class Run:
    """The answer of one method, complete or not.

    Args:
        name: of the method, with its options.
        reply: what it answered.
        moments: its steps, in order; none if it has not begun.
        idle: why it drafted nothing; "" if it drafted, or is plain decoding.
        parting: where and why it differs from plain decoding, if it does and that raced too.
    """

    name: str
    reply: Reply
    moments: tuple[Moment, ...] = ()
    idle: str = ""
    parting: Parting | None = None

    @property
    def seconds(self) -> float:
        """How long it took from the prompt to its end; 0 if nothing was answered."""
        return self.moments[-1].seconds if self.moments else 0.0

    @property
    def is_complete(self) -> bool:
        """Whether it came to its end."""
        return self.reply.finish != "interrupt"

    def until(self, seconds: float) -> tuple[Moment, ...]:
        """Return the moments of the first so many seconds."""
        return self.moments[: bisect_right(self.moments, seconds, key=lambda m: m.seconds)]


@dataclass(frozen=True)
class Race:
    """The answers of several methods to one request.

    Args:
        runs: in the order in which they were asked for.
        follows_drafts: whether their texts may differ by right, as `Rule.follows_drafts` has it.
    """

    runs: tuple[Run, ...]
    follows_drafts: bool = False

    @property
    def seconds(self) -> float:
        """How long the slowest took."""
        return max(run.seconds for run in self.runs)

    @property
    def is_complete(self) -> bool:
        """Whether all came to their ends."""
        return all(run.is_complete for run in self.runs)

    @property
    def reference(self) -> Run:
        """The run that the others' texts are compared with: plain decoding, else the first."""
        plain = plain_method()
        return next((run for run in self.runs if run.reply.method == plain), self.runs[0])

    def place(self, run: Run) -> int:
        """Return as which, from 1, a run was done."""
        return 1 + sum(other.is_complete and other.seconds < run.seconds for other in self.runs)

    def index_of_parting(self, run: Run) -> int | None:
        """Return from which token on, from 0, a run differs from the reference; None where the two
        are identical.
        """
        ids, others = run.reply.ids, self.reference.reply.ids
        return None if ids == others else common_prefix(ids, others)

    def speedup(self, run: Run) -> float | None:
        """Return a run's speed as a multiple of plain decoding's; None if that did not race."""
        reference = self.reference
        if reference.reply.method != plain_method() or not reference.moments:
            return None
        return run.reply.stats.tokens_per_second / reference.reply.stats.tokens_per_second


def enter(
    engine: Engine, request: Request, drafter: Method, tokens: int | None = None
) -> ReplyStream:
    """Return the stream of a run, which begins where the engine's own cache stands; that cache
    stays as it is.

    Args:
        engine: the engine that answers.
        request: what is asked for.
        drafter: of the run alone, as `Engine.make` returns it.
        tokens: the most of the reply, as to warm up; None for those of the request.
    """
    cache = engine.cache.fork(len(request.prompt.ids) - 1)
    return engine.stream(request, drafter=drafter, cache=cache, max_new_tokens=tokens)


def record(
    name: str,
    drafter: Method,
    stream: ReplyStream,
    on_step: Callable[[Stats], object] = lambda stats: None,
) -> Run:
    """Read a run to its end, and return it with the times of its steps.

    Args:
        name: of the method, with its options.
        drafter: what drafts in the stream.
        stream: the reply, not begun yet.
        on_step: is called after every step; what it takes is no part of the times.
    """
    stats, moments = stream.reply.stats, []
    for update in stream.updates():
        now = stats.seconds, update.pieces, stats.tokens, stats.tokens_per_second, stats.tau
        moments.append(Moment(*now))
        on_step(stats)
    drafted_nothing = drafter.drafts and moments and not stats.drafted
    idle = (drafter.idle or drafter.nothing_found) if drafted_nothing else ""
    return Run(name, stream.reply, tuple(moments), idle)


def compare(engine: Engine, request: Request, runs: Sequence[Run]) -> Race:
    """Return the race of some runs, in which each that differs from plain decoding says why.

    Args:
        engine: the engine that answered.
        request: what was asked for.
        runs: in the order in which they were asked for.
    """
    race = unexplained(request, runs)
    plain = race.reference
    if plain.reply.method != plain_method() or race.follows_drafts or not race.is_complete:
        return race
    explained = (
        replace(run, parting=find_parting(engine, request, run.reply, plain.reply)) for run in runs
    )
    return Race(tuple(explained))


def unexplained(request: Request, runs: Sequence[Run]) -> Race:
    """Return the race of some runs, which does not say why one differs from plain decoding.

    Args:
        request: what was asked for.
        runs: in the order in which they were asked for.
    """
    return Race(tuple(runs), request.settings.rule(request.number).follows_drafts)


def pieces_of(moments: Sequence[Moment]) -> list[Piece]:
    """Return the text of some moments, in pieces."""
    return [piece for moment in moments for piece in moment.pieces]
