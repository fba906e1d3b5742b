"""From the trials of a benchmark to the rows of its result; `figures` defines every figure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

from nfox.decoding.stats import Stats
from nfox.drafters import plain_method
from nfox.eval.bench.divergence import Divergence
from nfox.eval.bench.figures import ALL, Key, Row, StepTime
from nfox.eval.bench.trials import Trial

_RESAMPLES = 2000


def rows(
    target: str,
    trials: Sequence[Trial],
    categories: Sequence[str],
    divergences: Collection[Divergence] = (),
    peers: Collection[str] = (),
) -> list[Row]:
    """Return one row for each entrant and category, and for all categories together.

    Args:
        target: the name of the model.
        trials: all rounds of all entrants, the plain one among them.
        categories: the category of every task.
        divergences: where conversations part from the plain ones.
        peers: the entrants whose steps cannot be looked into.
    """
    table = []
    entrants = dict.fromkeys(trial.entrant for trial in trials)
    kinds = list(dict.fromkeys(categories[trial.task] for trial in trials))
    for category in [ALL, *kinds] if len(kinds) > 1 else [ALL]:
        tasks = {task for task, kind in enumerate(categories) if category in (ALL, kind)}
        plain_trials = [t for t in trials if t.entrant == plain_method() and t.task in tasks]
        for entrant in entrants:
            own_trials = [t for t in trials if t.entrant == entrant and t.task in tasks]
            gaps = (d.gap for d in divergences if d.entrant == entrant and d.task in tasks)
            key, gap = (target, entrant, category), max(gaps, default=0.0)
            table.append(_row(key, own_trials, plain_trials, gap, peer=entrant in peers))
    return table


def _row(key: Key, own: Sequence[Trial], plain: Sequence[Trial], gap: float, *, peer: bool) -> Row:
    stats = _stats(own)
    tokens, steps = sum(reply.tokens for reply in stats), sum(reply.steps for reply in stats)
    seconds = sum(reply.seconds for reply in stats)
    tau = tokens / max(steps, 1)
    speedup, low, high = speedups(own, plain)
    total, plain_total = _total_speed(own), _total_speed(plain)
    plain_replies = {(trial.task, trial.round): trial.replies for trial in plain}
    identical = [t.replies == plain_replies.get((t.task, t.round)) for t in own]
    target, method, category = key
    return Row(
        target=target,
        method=method,
        category=category,
        prompts=len({trial.task for trial in own}),
        tokens=tokens,
        steps=steps,
        tau=tau,
        tokens_per_second=tokens / seconds if seconds else 0.0,
        ttft_ms=1e3 * median([reply.first_token_seconds for reply in stats] or [0.0]),
        speedup=speedup,
        speedup_low=low,
        speedup_high=high,
        speedup_total=total / plain_total if plain_total else 0.0,
        efficiency=speedup / tau if tau else 0.0,
        identical=sum(identical) / max(len(identical), 1),
        accept_by_depth=_by_depth(stats),
        peak_memory_mb=max((trial.memory for trial in own), default=0) / 1e6,
        too_long=len({trial.task for trial in own if trial.too_long}),
        gap=gap,
        **({} if peer else _of_steps(stats, _stats(plain), tau)),
    )


def _stats(trials: Sequence[Trial]) -> list[Stats]:
    return [reply for trial in trials for reply in trial.stats]


def _of_steps(stats: Sequence[Stats], plain: Sequence[Stats], tau: float) -> dict[str, Any]:
    """Return the figures, by name, of what happened inside of steps."""
    steps = max(sum(reply.steps for reply in stats), 1)
    seconds = sum(reply.seconds for reply in stats)
    time = _step_time(stats, seconds, steps)
    plain_steps = max(sum(reply.steps for reply in plain), 1)
    plain_step = 1e3 * sum(reply.seconds for reply in plain) / plain_steps
    wide, drafting = (
        part / plain_step if plain_step and part else 0.0 for part in (time.target, time.draft)
    )
    return {
        "nodes": sum(reply.drafted for reply in stats) / steps,
        "wide": wide,
        "drafting": drafting,
        "predicted": tau / (wide + drafting) if wide else 0.0,
        "overhead": sum(reply.host_seconds for reply in stats) / seconds if seconds else 0.0,
        "time": time,
    }


def _step_time(stats: Sequence[Stats], seconds: float, steps: int) -> StepTime:
    parts = {
        "draft": sum(reply.draft_seconds for reply in stats),
        "target": sum(reply.target_seconds for reply in stats),
        "verify": sum(reply.verify_seconds for reply in stats),
        "cache": sum(reply.cache_seconds for reply in stats),
    }
    parts["host"] = seconds - sum(parts.values())
    return StepTime(**{part: 1e3 * spent / steps for part, spent in parts.items()})


def _total_speed(trials: Sequence[Trial]) -> float:
    """Return the tokens of replies per second of prefill and steps."""
    tokens = sum(len(ids) for trial in trials for ids in trial.replies)
    seconds = sum(reply.prefill_seconds + reply.seconds for reply in _stats(trials))
    return tokens / seconds if seconds else 0.0


def speedups(
    own: Sequence[Trial], plain: Sequence[Trial], seed: int = 0
) -> tuple[float, float, float]:
    """Return how many times faster trials are than plain ones, and the bounds of 95 %.

    The bounds are those of a bootstrap over tasks and over rounds.

    Args:
        own: trials of one entrant.
        plain: plain trials of the same tasks and rounds.
        seed: for the resampling.
    """
    tasks = sorted({trial.task for trial in plain})
    rounds = sorted({trial.round for trial in plain})
    if not tasks:
        return 0.0, 0.0, 0.0
    grids = [_grid(trials, tasks, rounds) for trials in (own, plain)]
    generator = torch.Generator().manual_seed(seed)
    drawn_tasks, drawn_rounds = (
        torch.randint(len(of), (_RESAMPLES, len(of)), generator=generator) for of in (tasks, rounds)
    )
    resampled = [
        grid[:, drawn_tasks[:, :, None], drawn_rounds[:, None, :]].sum((2, 3)) for grid in grids
    ]  # [2, resamples]: tokens and seconds
    ratios = _ratio(*resampled)
    ratios = ratios[ratios.isfinite()]  # a resample without steps on one side says nothing
    if not len(ratios):
        return 0.0, 0.0, 0.0
    low, high = (float(ratios.quantile(share)) for share in (0.025, 0.975))
    return float(_ratio(*(grid.sum((1, 2)) for grid in grids)).nan_to_num(0.0)), low, high


def _grid(trials: Sequence[Trial], tasks: list[int], rounds: list[int]) -> Tensor:
    """Return the tokens and the seconds of steps of every trial, [2, tasks, rounds]."""
    grid = torch.zeros(2, len(tasks), len(rounds), dtype=torch.float64)
    for trial in trials:
        tokens = sum(reply.tokens for reply in trial.stats)
        seconds = sum(reply.seconds for reply in trial.stats)
        place = tasks.index(trial.task), rounds.index(trial.round)
        grid[:, *place] += torch.tensor([tokens, seconds], dtype=torch.float64)
    return grid


def _ratio(own: Tensor, plain: Tensor) -> Tensor:
    """Return the ratio of tokens per second, from tokens and seconds, [2, ...] each."""
    return (own[0] / own[1]) / (plain[0] / plain[1])


def _by_depth(stats: Sequence[Stats]) -> list[float | None]:
    """Return for every depth the share of the steps that drafted so deep which accepted so deep."""
    deepest = max((len(reply.tried) for reply in stats), default=0)
    shares: list[float | None] = []
    for depth in range(deepest):
        deep = [reply for reply in stats if len(reply.tried) > depth]
        accepted = sum(reply.reached[depth] for reply in deep)
        shares.append(accepted / sum(reply.tried[depth] for reply in deep))
    return shares
