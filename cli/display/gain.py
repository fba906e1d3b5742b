"""What a reply gained by its drafts, what more they could give, and what it lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nfox.decoding.costs import Costs
    from nfox.decoding.stats import Stats
    from nfox.drafters.common.method import Method
    from nfox.engine import Engine
    from nfox.reply import Reply

    from .steps import StepRecord

GAIN = 1.1  # below, a reply has gained nothing worth the name
_LOSS = 0.95  # of the speed of plain decoding: below, drafts have cost more than they gave
_NOISE = 1.15  # by which what is measured is more than it is
_LONGEST = 16  # tokens of the chains that are thought of
LEAST_STEPS = 16  # of a reply of which anything can be said


def gained_nothing(engine: Engine, reply: Reply, records: Sequence[StepRecord], tau: str) -> str:
    """Return the line that says that a whole reply, with drafts in it, gained nothing by them: it
    has hardly more than a token per step, or its steps took the longer for it. "" where it gained.

    Args:
        engine: the engine that gave it.
        reply: the reply.
        records: its steps.
        tau: the symbol of the tokens per step.
    """
    stats, costs = reply.stats, engine.costs
    if stats.steps < LEAST_STEPS or not stats.drafted:
        return ""
    text = f"guessing ahead gained nothing in this reply, {tau} {stats.tau:.2f}"
    if stats.tau < GAIN:
        return f"{text}; /why says why"
    if costs is None or not stats.target_seconds:
        return ""
    # What forwards of these widths take, and what all else took beside them: whatever other
    # programs did has slowed both.
    seconds = forwards_alone(costs, records) * stats.seconds / stats.target_seconds
    longer = seconds / stats.steps / costs.forward_seconds(1)
    told = f"{text}, since a step takes {longer:.2f} times as long as one without; /why says more"
    return told if stats.tau < _LOSS * longer else ""


def guesses_nothing(drafter: Method) -> str:
    """Return the line that says why a method guesses nothing as it stands, and what to do; "" if it
    guesses where it can.
    """
    return _no_guess(drafter, "guesses nothing", drafter.idle) if drafter.drafts else ""


def guessed_nothing(engine: Engine, reply: Reply) -> str:
    """Return the line that says why there was no guess in a whole reply, and what to do; "" where
    there was one, none is expected, or the reply is too short to say.

    Args:
        engine: the engine that gave it.
        reply: the reply.
    """
    drafter, stats = engine.drafter, reply.stats
    if engine.method != reply.method or stats.drafted or not (drafter.drafts and stats.steps):
        return ""
    if stats.steps >= LEAST_STEPS and not drafter.idle:
        return _no_guess(drafter, "guessed nothing in this reply", drafter.nothing_found)
    return guesses_nothing(drafter) if stats.steps >= LEAST_STEPS or not drafter.chooses else ""


def _no_guess(drafter: Method, what: str, why: str) -> str:
    advice = "`nfox methods` says what heads or draft model may help"
    if not drafter.chooses:
        advice = "method auto takes whichever pays"
    return f"{drafter.method_name()} {what}: {why}; {advice}" if why else ""


def forwards_alone(costs: Costs, records: Sequence[StepRecord]) -> float:
    """Return the seconds that forwards as wide as those of a reply take by themselves."""
    return sum(costs.forward_seconds(1 + len(record.nodes)) for record in records)


def share_right(stats: Stats) -> float:
    """Return how often the next guess of a path was right, where there was one: alpha."""
    asked = sum(stats.tried[:1]) + sum(
        min(tried, reached) for tried, reached in zip(stats.tried[1:], stats.reached, strict=False)
    )
    return sum(stats.reached) / asked if asked else 0.0


def pace(stats: Stats, costs: Costs, records: Sequence[StepRecord]) -> float:
    """Return how many times as long as they should, by what was measured before, the forwards of a
    reply took. Those of a short one, for which nothing is cached, say little where they took
    longer; where they took less, the machine was busy while forwards were measured.
    """
    alone = forwards_alone(costs, records)
    times = stats.target_seconds / alone if alone and stats.target_seconds else 1.0
    return times if len(records) >= LEAST_STEPS else min(times, 1.0)


def best_chain(stats: Stats, costs: Costs, pace: float) -> tuple[int, float]:
    """Return the chain that pays most at the acceptance that was seen, and its speed-up.

    Args:
        stats: of the reply.
        costs: of forwards.
        pace: of the reply's own.
    """
    alpha = share_right(stats)
    each = stats.draft_seconds / max(stats.drafted, 1) / pace
    gamma = costs.best_gamma(_LONGEST, each, alpha=alpha)
    return gamma, costs.speedup(gamma, alpha, each)


def speedup(stats: Stats, costs: Costs, pace: float) -> float:
    """Return the speed of a reply as a multiple of plain decoding at the pace of its forwards: as
    on the machine that gave it, not on the one that was there when forwards were measured.
    """
    return stats.tokens_per_second * costs.forward_seconds(1) * pace


def is_disturbed(speedup: float, steps: int, tau: float) -> bool:
    """Return whether a speed-up was measured while other programs ran: a step that checks guesses
    takes no less than one without, so that no more than the tokens per step can be gained.

    Args:
        speedup: over plain decoding, as measured.
        steps: that were measured; of a few nothing is said.
        tau: the tokens per step.
    """
    return steps >= LEAST_STEPS and speedup > tau * _NOISE
