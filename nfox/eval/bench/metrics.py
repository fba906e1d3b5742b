"""From trials to the figures of a table, each with its definition."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

from nfox.decoding.stats import DEFINITIONS, Stats
from nfox.drafters import plain
from nfox.eval.bench.result import ALL
from nfox.eval.bench.runner import Divergence, Trial

EXPLAIN = {
    "prompts": "conversations that were held; each counts once, however many rounds there were",
    "tokens": "tokens emitted in all rounds; what is drafted beyond a reply's end is none of them",
    "steps": DEFINITIONS["steps"],
    "tau": DEFINITIONS["tau"],
    "tokens_per_second": "tokens / time of the steps, summed over prompts and rounds; no prefill",
    "ttft_ms": "median over replies of the time to the first token: prefill and the first step",
    "speedup": "tokens_per_second / that of plain decoding, on the same prompts in the same rounds",
    "speedup_low": "where 2.5 % of speed-ups are below, prompts and rounds drawn anew (bootstrap)",
    "speedup_high": "where 2.5 % are above",
    "speedup_total": "the same with prefill: replies' tokens / (time of prefill and steps)",
    "efficiency": "speedup / tau: what is left of the tokens per step once wide forwards and "
    "drafting are paid",
    "identical": "share of conversations whose tokens all equal those of plain decoding in the "
    "same round; a simulated one is given them",
    "gap": "where replies part from the plain ones: the largest difference of the two tokens' "
    "logits (with penalties and noise) in a plain step; near-ties fall either way when logits are "
    "rounded",
    "accept_by_depth": DEFINITIONS["by depth"],
    "nodes": "tokens drafted in a step",
    "wide": "t(N)/t(1): time of the target's forward in a step / time of a plain step",
    "drafting": "d: time of drafting in a step / time of a plain step; what a drafter reads of the "
    "prompt is drafting, in the first step",
    "predicted": "tau / (wide + drafting): the speed-up if the loop itself took no time",
    "overhead": "share of the steps' time that is neither drafting nor the target's forward",
    "peak_memory_mb": "most memory in use after a conversation, everyone's weights included: of "
    "the process; on a GPU the most of torch's tensors meanwhile",
    "too_long": "conversations that were ended since they did not fit into the context",
    "time": "milliseconds of a step: drafting, the target's forward, judging the tree, keeping "
    "keys and values, and the rest of the loop",
}
"""What every figure means."""

SHOWN = {
    "tokens_per_second": "tok/s",
    "ttft_ms": "TTFT",
    "efficiency": "eff.",
    "wide": "t(N)/t(1)",
    "drafting": "d",
    "overhead": "loop",
}
"""What the terminal's table calls figures that are long."""

SIMULATED = {
    "expected_tau": "of the formula: (1 - a^(g+1)) / (1 - a), for a text without an end",
    "expected_tau_cut": "cut: what replies of these lengths should give; they end inside of a step",
    "expected_speedup": "tau of the formula x t(1) / (t(g+1) + g x time of a drafted token), by "
    "the costs measured at load",
}
"""Figures of simulated rates of acceptance."""

PEERS = (
    "Of a peer only tokens and their times are seen: those that come with the prompt's forward, "
    "which is no step, are left out of tokens, steps and tokens_per_second, and what a step "
    "consists of is not known; so is what a draft model reads of the prompt, while nfox counts "
    "that in its first step. hf peers read the whole conversation again in every turn. Where "
    "tokens are drawn, a peer draws others."
)
"""What is different of other programs."""

_RESAMPLES = 2000


def rows(
    trials: Sequence[Trial],
    categories: Sequence[str],
    parted: Iterable[Divergence] = (),
    peers: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Return one row for each method and category, and for all of them.

    Args:
        trials: all rounds of all methods, the plain one among them.
        categories: of every task.
        parted: where conversations differ from the plain ones.
        peers: those whose steps cannot be looked into.
    """
    found = []
    names = dict.fromkeys(trial.entrant for trial in trials)
    kinds = list(dict.fromkeys(categories[trial.task] for trial in trials))
    gaps = {(one.entrant, one.task): one.gap for one in parted}
    for kind in [ALL, *kinds] if len(kinds) > 1 else [ALL]:
        tasks = {place for place, other in enumerate(categories) if kind in (ALL, other)}
        base = [trial for trial in trials if trial.entrant == plain() and trial.task in tasks]
        for name in names:
            own = [trial for trial in trials if trial.entrant == name and trial.task in tasks]
            gap = max((gap for (who, task), gap in gaps.items() if who == name and task in tasks),
                      default=0.0)  # fmt: skip
            found.append(
                {
                    "method": name,
                    "category": kind,
                    **_row(own, base, seen=name not in peers),
                    "gap": gap,
                }
            )
    return found


def _row(own: Sequence[Trial], plain: Sequence[Trial], *, seen: bool) -> dict[str, Any]:
    """Return the figures of some trials; `seen` says whether their steps' parts are known."""
    stats = [one for trial in own for one in trial.stats]
    tokens, steps = sum(one.tokens for one in stats), sum(one.steps for one in stats)
    seconds = sum(one.seconds for one in stats)
    tau = tokens / max(steps, 1)
    speedup, low, high = speedups(own, plain)
    total, base = _total(own), _total(plain)
    same = {(trial.task, trial.turn): trial.replies for trial in plain}
    equal = [trial.replies == same.get((trial.task, trial.turn)) for trial in own]
    return {
        "prompts": len({trial.task for trial in own}),
        "tokens": tokens,
        "steps": steps,
        "tau": tau,
        "tokens_per_second": tokens / seconds if seconds else 0.0,
        "ttft_ms": 1e3 * median([one.first_token_seconds for one in stats] or [0.0]),
        "speedup": speedup,
        "speedup_low": low,
        "speedup_high": high,
        "speedup_total": total / base if base else 0.0,
        "efficiency": speedup / tau if tau else 0.0,
        "identical": sum(equal) / max(len(equal), 1),
        "accept_by_depth": _by_depth(stats),
        "peak_memory_mb": max((trial.memory for trial in own), default=0) / 1e6,
        "too_long": len({trial.task for trial in own if trial.too_long}),
        **(_inside(stats, plain, tau) if seen else dict.fromkeys(_INSIDE)),
    }


_INSIDE = ("nodes", "wide", "drafting", "predicted", "overhead", "time")


def _inside(stats: Sequence[Stats], plain: Sequence[Trial], tau: float) -> dict[str, Any]:
    """Return what is known of steps whose parts are seen."""
    steps = max(sum(one.steps for one in stats), 1)
    seconds = sum(one.seconds for one in stats)
    base = [one for trial in plain for one in trial.stats]
    times = _times(stats, steps)
    step = 1e3 * sum(one.seconds for one in base) / max(sum(one.steps for one in base), 1)
    wide, drafting = (times[part] / step if step else 0.0 for part in ("target", "draft"))
    host = sum(one.host_seconds for one in stats)
    found = (
        sum(one.drafted for one in stats) / steps,
        wide,
        drafting,
        tau / (wide + drafting) if wide else 0.0,
        host / seconds if seconds else 0.0,
        times,
    )
    return dict(zip(_INSIDE, found, strict=True))


def _total(trials: Sequence[Trial]) -> float:
    """Return tokens per second of replies, prefill included."""
    tokens = sum(len(ids) for trial in trials for ids in trial.replies)
    stats = [one for trial in trials for one in trial.stats]
    seconds = sum(one.prefill_seconds + one.seconds for one in stats)
    return tokens / seconds if seconds else 0.0


def speedups(
    own: Sequence[Trial], plain: Sequence[Trial], seed: int = 0
) -> tuple[float, float, float]:
    """Return how many times faster trials are than plain ones, and the bounds of 95 %.

    Args:
        own: trials of one method.
        plain: those of the same tasks and rounds, decoded plainly.
        seed: of the resampling.
    """
    tasks = sorted({trial.task for trial in plain})
    turns = sorted({trial.turn for trial in plain})
    if not tasks:
        return 0.0, 0.0, 0.0
    sums = [_grid(trials, tasks, turns) for trials in (own, plain)]
    generator = torch.Generator().manual_seed(seed)
    drawn = [
        torch.randint(len(of), (_RESAMPLES, len(of)), generator=generator) for of in (tasks, turns)
    ]
    picked = [
        grid[:, drawn[0][:, :, None], drawn[1][:, None, :]].sum((2, 3)) for grid in sums
    ]  # [2, resamples]: tokens and seconds
    many = _ratio(*picked)
    many = many[many.isfinite()]  # what says nothing of one side says nothing of both
    if not len(many):
        return 0.0, 0.0, 0.0
    low, high = (float(many.quantile(share)) for share in (0.025, 0.975))
    return float(_ratio(*(grid.sum((1, 2)) for grid in sums)).nan_to_num(0.0)), low, high


def _grid(trials: Sequence[Trial], tasks: list[int], turns: list[int]) -> Tensor:
    """Return [2, tasks, rounds] tokens and seconds of every trial."""
    grid = torch.zeros(2, len(tasks), len(turns), dtype=torch.float64)
    for trial in trials:
        place = tasks.index(trial.task), turns.index(trial.turn)
        grid[:, *place] += torch.tensor(
            [sum(one.tokens for one in trial.stats), sum(one.seconds for one in trial.stats)],
            dtype=torch.float64,
        )
    return grid


def _ratio(own: Tensor, plain: Tensor) -> Tensor:
    return (own[0] / own[1]) / (plain[0] / plain[1])


def _by_depth(stats: Sequence[Stats]) -> list[float]:
    deepest = max((len(one.tried) for one in stats), default=0)
    found = []
    for depth in range(deepest):
        deep = [one for one in stats if len(one.tried) > depth]
        found.append(sum(one.reached[depth] for one in deep) / sum(o.tried[depth] for o in deep))
    return found


def _times(stats: Sequence[Stats], steps: int) -> dict[str, float]:
    parts = {
        "draft": sum(one.draft_seconds for one in stats),
        "target": sum(one.target_seconds for one in stats),
        "verify": sum(one.verify_seconds for one in stats),
        "cache": sum(one.cache_seconds for one in stats),
    }
    parts["host"] = sum(one.seconds for one in stats) - sum(parts.values())
    return {name: 1e3 * seconds / steps for name, seconds in parts.items()}
