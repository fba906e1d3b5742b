"""Where conversations part from the plain ones, and whether a near-tie explains it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nfox.eval import peers
from nfox.eval.bench.figures import DivergenceRow
from nfox.eval.bench.result import BenchResult
from nfox.eval.bench.runner import REPLIES_PER_TASK
from nfox.eval.bench.trials import Bench, Trial
from nfox.plain_reply import locate_parting
from nfox.reply import Request
from nfox.text.messages import Message
from nfox.text.stream import reply_text


@dataclass(frozen=True)
class Divergence:
    """Where a conversation and the plain one part.

    Args:
        entrant: the entrant's name.
        task: the task's index.
        reply: which reply, from 0.
        token: which of its tokens, from 0.
        gap: by how much a plain step scores the plain token higher than the other one, by logits
            with their penalties and noise. Rounded logits of a wide forward differ a little from a
            plain step's, so that near-ties fall either way; a large gap is an error.
    """

    entrant: str
    task: int
    reply: int
    token: int
    gap: float


def divergences(bench: Bench, trials: Iterable[Trial]) -> list[Divergence]:
    """Return where conversations first part from the plain ones, one for each entrant and task.

    What is drawn with other random numbers is another text, so it is not looked at: that of peers,
    and of rules other than `exact`.
    """
    trials = list(trials)
    plain = bench.entrants[0].name
    plain_trials = {(trial.task, trial.round): trial for trial in trials if trial.entrant == plain}
    programs = {entrant.name for entrant in bench.entrants if entrant.kind == "peer"}
    first: dict[tuple[str, int], Divergence] = {}
    for trial in trials:
        key = trial.entrant, trial.task
        greedy = bench.tasks[trial.task].settings(bench.settings).sampling.greedy
        own_noise = trial.entrant in programs or bench.settings.accept != "exact"
        if key in first or (own_noise and not greedy):
            continue
        divergence = first_divergence(bench, trial, plain_trials[trial.task, trial.round])
        if divergence is not None:
            first[key] = divergence
    return list(first.values())


def near_ties(result: BenchResult) -> list[DivergenceRow]:
    """Return the divergences of entrants with the target's own weights, the widest gap first: they
    are near-ties, or errors. Weights that are rounded otherwise say another text of their own.
    """
    own = [
        row
        for row in result.divergences
        if row.entrant not in peers.names() or not peers.peer(row.entrant).other_weights
    ]
    return sorted(own, key=lambda row: -(row.gap or 0.0))


def first_divergence(bench: Bench, trial: Trial, plain: Trial) -> Divergence | None:
    """Return where a trial and the plain one of its task first part; None if nowhere."""
    for reply, (own_ids, plain_ids) in enumerate(zip(trial.replies, plain.replies, strict=False)):
        if own_ids == plain_ids:
            continue
        parting = locate_parting(bench.engine, _request(bench, plain, reply), own_ids, plain_ids)
        return Divergence(trial.entrant, trial.task, reply, parting.index, parting.gap)
    return None


def _request(bench: Bench, plain: Trial, reply: int) -> Request:
    """Return what a reply of a plain trial was asked by.

    Args:
        bench: that the trial is of.
        plain: a plain trial.
        reply: which of its replies.
    """
    engine, task = bench.engine, bench.tasks[plain.task]
    messages = list[Message]()
    for turn, ids in zip(task.turns, plain.replies[:reply], strict=False):
        text = reply_text(engine.model.tokenizer, ids)
        messages += [Message("user", turn), Message("assistant", text, tuple(ids))]
    messages.append(Message("user", task.turns[reply]))
    number = REPLIES_PER_TASK * plain.task + reply
    return Request(engine.encode(messages), task.settings(bench.settings), number)
