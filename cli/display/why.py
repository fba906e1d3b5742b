"""Where the time of a reply went, how far drafts were right, what the machine allows, and the one
cause to name where it is slow.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from nfox.counting import counted
from nfox.drafters import method_class, plain_method
from nfox.models.native.processor import BUSY

from .reply_stats import by_depth, duration
from .text_kinds import KINDS, kinds_of

if TYPE_CHECKING:
    from nfox.decoding.costs import Costs
    from nfox.decoding.stats import Stats
    from nfox.engine import Engine
    from nfox.reply import Reply

    from .steps import StepRecord

_SLOWER = 1.5  # a forward than at load, where the machine is busy
_GAIN = 1.1  # below, a reply has gained nothing worth the name
_LONGEST = 16  # tokens of the chains that are thought of
_DRAFTING = 0.35  # of the time, where drafting is what takes it
_LEAST_STEPS = 16  # of a reply of which anything can be said


def gained_nothing(reply: Reply) -> bool:
    """Whether a whole reply, with drafts in it, has emitted hardly more than a token per step."""
    stats = reply.stats
    return stats.steps >= _LEAST_STEPS and stats.drafted > 0 and stats.tau < _GAIN


def explain(engine: Engine, reply: Reply, records: Sequence[StepRecord]) -> list[str]:
    """Return lines that say why a reply was as fast as it was.

    Args:
        engine: the engine that gave it.
        reply: the reply.
        records: its steps.
    """
    stats, costs = reply.stats, engine.costs
    lines = [f"time      {_shares(stats)}"]
    if depths := by_depth(stats):
        lines.append(f"by depth  {depths}")
    lines.append(f"by kind   {_by_kind(records)}  (share of tokens that were drafted)")
    if costs is not None:
        lines.append(f"allows    {_allowed(stats, costs)}")
        lines.append(f"forwards  {costs}")
        if engine.costs_at_load is not None and costs != engine.costs_at_load:
            lines.append(f"at load   {engine.costs_at_load}")
    if engine.method == reply.method:  # and not another one by now
        lines += [f"method    {line}" for line in engine.drafter.explain()]
    cause, setting = _cause(engine, reply)
    return [*lines, f"so        {cause}", *([f"change    {setting}"] if setting else [])]


def _shares(stats: Stats) -> str:
    """Return where the time went, in seconds and shares."""
    whole = stats.prefill_seconds + stats.seconds
    parts = {
        "prefill": stats.prefill_seconds,
        "forwards": stats.target_seconds,
        "drafting": stats.draft_seconds,
        "loop": stats.host_seconds,
    }
    shares = "  ".join(f"{name} {part / whole:.0%}" for name, part in parts.items() if whole)
    return f"{duration(whole)}: {shares}"


def _by_kind(records: Sequence[StepRecord]) -> str:
    """Return for each kind of text the share of its tokens that drafts gave."""
    texts = [token for record in records for token in record.tokens]
    sources = [source for record in records for source in record.sources]
    kinds = list(kinds_of(texts))
    accepted = Counter(
        kind for kind, source in zip(kinds, sources, strict=True) if source == "accepted"
    )
    counts = Counter(kinds)
    return "  ".join(
        f"{kind} {accepted[kind] / counts[kind]:.0%} of {counts[kind]}"
        for kind in KINDS
        if counts[kind]
    )


def _rate(stats: Stats) -> float:
    """Return how often the next guess of a path was right, where there was one: alpha."""
    asked = sum(stats.tried[:1]) + sum(
        min(tried, reached) for tried, reached in zip(stats.tried[1:], stats.reached, strict=False)
    )
    return sum(stats.reached) / asked if asked else 0.0


def _best(stats: Stats, costs: Costs) -> tuple[int, float]:
    """Return the chain that pays most at the acceptance that was seen, and its speed-up."""
    alpha = _rate(stats)
    drafted = max(stats.drafted, 1)
    each = stats.draft_seconds / drafted
    gamma = costs.best_gamma(_LONGEST, each, alpha=alpha)
    return gamma, costs.speedup(gamma, alpha, each)


def _gain(stats: Stats, costs: Costs) -> float:
    """Return the speed of a reply as a multiple of plain decoding now."""
    return stats.tokens_per_second * costs.forward_seconds(1)


def _allowed(stats: Stats, costs: Costs) -> str:
    """Return the speeds of plain decoding, of the reply and of the best chain."""
    plain = 1 / costs.forward_seconds(1)
    text = f"plain decoding {plain:.1f} tok/s, this reply {stats.tokens_per_second:.1f}"
    text += f" ({_gain(stats, costs):.2f}x)"
    if not stats.drafted:
        return text
    gamma, speedup = _best(stats, costs)
    best = (
        f"{counted(gamma, 'guess')} in a row {plain * speedup:.1f}" if gamma else "no guess at all"
    )
    return f"{text}, at best {best} (each right with {_rate(stats):.2f})"


def _cause(engine: Engine, reply: Reply) -> tuple[str, str]:
    """Return the cause of a reply's speed, and the one setting to change; "" for none."""
    stats, costs = reply.stats, engine.costs
    gain = _gain(stats, costs) if costs else 0.0
    if held_up := _held_up(engine, is_slow=gain < _GAIN):
        return held_up
    if reply.method == plain_method():
        return "plain decoding: every token takes a forward", "/method auto drafts where it pays"
    if costs is None:
        return f"{stats.tau:.2f} tokens per step", ""
    if gain >= _GAIN:
        return f"{gain:.2f}x as fast as plain decoding: nothing is wrong", ""
    if not costs.speculation_pays:
        return _wide(engine, costs)
    if stats.draft_seconds > _DRAFTING * stats.seconds:
        share = stats.draft_seconds / stats.seconds
        return f"drafting takes {share:.0%} of the time", _other_method(reply, "guesses for less")
    if not stats.drafted:
        return "nothing was drafted: nothing promised a gain", _other_method(
            reply, "may fit better"
        )
    rate = f"of the guesses in a row {_rate(stats):.0%} were right"
    return f"low acceptance: {rate}", _other_method(reply, "may fit this text better")


def _other_method(reply: Reply, why: str) -> str:
    """Return which method to try in place of the one that answered."""
    if method_class(reply.method).chooses:
        return f"`nfox methods` says what heads or draft model {why}"
    return f"/method auto takes whichever {why}"


def _wide(engine: Engine, costs: Costs) -> tuple[str, str]:
    """Return that forwards over several tokens take too long, and why."""
    ratio = costs.forward_seconds(4) / costs.forward_seconds(1)
    cause = (
        f"a forward over 4 tokens takes {ratio:.1f} times one over 1, more than drafts give back"
    )
    kind = engine.loader.loading.quantisation if engine.loader else None
    if kind is not None:
        return f"{cause}: weights quantised as {kind}", "load without it, or with --quantize int8"
    return cause, f"/method {plain_method()} spares what drafting costs"


def _held_up(engine: Engine, *, is_slow: bool) -> tuple[str, str] | None:
    """Return that other programs, or too few threads, hold forwards up; None if they do not.

    Args:
        engine: the engine that answers.
        is_slow: whether the reply gained nothing: then what else runs is looked at too.
    """
    costs, before, target = engine.costs, engine.costs_at_load, engine.model.target
    if target.device.type != "cpu":
        return None
    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    slower = costs.forward_seconds(1) / before.forward_seconds(1) if costs and before else 1.0
    if slower > _SLOWER or (is_slow and load > BUSY * cores):
        cause = f"a busy machine: load {load:.1f} on {counted(cores, 'core')}"
        if slower > _SLOWER:
            cause += f", forwards take {slower:.1f}x of what they did at load"
        return cause, "--threads 1" if threads > 1 else "end what else runs"
    if threads < cores and not engine.threads:
        return (
            f"few threads: {threads} of {counted(cores, 'core')}",
            f"--threads {cores}, or leave it out",
        )
    return None
