"""Where the time of a reply went, how far drafts were right, what the machine allows, and the one
cause to name where it is slow.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from itertools import chain, repeat
from typing import TYPE_CHECKING

import torch

from nfox.counting import counted
from nfox.drafters import method_class, plain_method
from nfox.models.native.processor import BUSY

from .gain import GAIN, best_chain, pace, share_right, speedup
from .reply_stats import NAME_CELLS, by_depth, duration, forward_costs
from .text_kinds import KINDS, kinds_of

if TYPE_CHECKING:
    from nfox.decoding.costs import Costs
    from nfox.decoding.stats import Stats
    from nfox.engine import Engine
    from nfox.reply import Reply

    from .steps import StepRecord

_SLOWER = 1.5  # a forward than at load, where the machine is busy
_ANOTHER = 1.2  # times as long as forwards take by now, where those of a reply are worth a line
_LONGER = 1.2  # a forward than after a few tokens, where the context is worth a line
_DRAFTING = 0.35  # of the time, where drafting is what takes it


def explain(engine: Engine, reply: Reply, records: Sequence[StepRecord]) -> list[str]:
    """Return lines that say why a reply was as fast as it was.

    Args:
        engine: the engine that gave it.
        reply: the reply.
        records: its steps.
    """
    stats, costs, context = reply.stats, engine.costs, engine.context_slowdown()
    lines = [f"time      {_shares(stats)}"]
    if depths := by_depth(stats):
        lines.append(f"by depth  {depths}")
    lines.append(f"by kind   {_by_kind(records)}  (tokens that were guessed)")
    if costs is not None:
        times = pace(stats, costs, records)
        lines.append(f"speed     {_speeds(stats, costs, times)}")
        forwards, *at_start = of_forwards(engine)
        lines.append(forwards)
        if not 1 / _ANOTHER < times / max(context, 1.0) < _ANOTHER:
            lines.append(f"          those of this reply took {times:.2f} times as long as these")
        lines += at_start
        if context > _LONGER:
            longer = f"{context:.1f} times as long after {len(engine.cache.tokens):,} tokens"
            lines.append(f"context   a forward takes {longer} as after a few")
    if engine.method == reply.method:  # and not another one by now
        names = chain(["method"], repeat(""))
        told = zip(names, engine.drafter.explain(), strict=False)
        lines += [f"{name.ljust(NAME_CELLS)}{line}" for name, line in told]
    cause, setting = _cause(engine, reply, records, context)
    return [*lines, f"cause     {cause}", *([f"change    {setting}"] if setting else [])]


def of_forwards(engine: Engine) -> list[str]:
    """Return lines that say what forwards take now, and what they took at the start, where they
    were measured.
    """
    costs, before = engine.costs, engine.costs_at_load
    lines = [] if costs is None else [f"forwards  {forward_costs(costs)}"]
    if before is not None and costs != before:
        lines.append(f"at start  {forward_costs(before)}")
    return lines


def _shares(stats: Stats) -> str:
    """Return where the time went, in seconds and shares."""
    whole = stats.prefill_seconds + stats.seconds
    parts = {
        "prefill": stats.prefill_seconds,
        "forwards": stats.target_seconds,
        "drafting": stats.draft_seconds,
        "rest": stats.host_seconds,
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


def _speeds(stats: Stats, costs: Costs, times: float) -> str:
    """Return the speeds of plain decoding, of the reply and of the best chain, where forwards take
    so many times as long as measured.
    """
    plain = 1 / costs.forward_seconds(1) / times
    text = f"plain decoding {plain:.1f} tok/s, this reply {stats.tokens_per_second:.1f}"
    text += f" ({speedup(stats, costs, times):.2f}x)"
    if not stats.drafted:
        return text
    right = f"{share_right(stats):.0%} of the guesses right"
    gamma, gain = best_chain(stats, costs, times)
    if not gamma:
        return f"{text}; with {right} no guess is worth its time"
    if plain * gain <= stats.tokens_per_second:  # a tree may give more than any chain
        return f"{text}, with {right}"
    return f"{text}, at best {plain * gain:.1f} by {gamma} ahead with {right}"


def _cause(
    engine: Engine, reply: Reply, records: Sequence[StepRecord], context: float
) -> tuple[str, str]:
    """Return the cause of a reply's speed, and the one setting to change; "" for none. Forwards
    take `context` times as long as after a few tokens.
    """
    stats, costs = reply.stats, engine.costs
    slower = pace(stats, costs, records) if costs else 1.0
    gain = speedup(stats, costs, slower) if costs else 0.0
    if held_up := _held_up(engine, slower, context, is_slow=gain < GAIN):
        return held_up
    if reply.method == plain_method():
        return "plain decoding: every token takes a forward", "/method auto guesses where it pays"
    if costs is None:
        return f"{stats.tau:.2f} tokens per step", ""
    if gain >= GAIN:
        return f"{gain:.2f}x as fast as plain decoding: nothing is wrong", ""
    if not costs.speculation_pays:
        return _wide(engine, costs)
    if stats.draft_seconds > _DRAFTING * stats.seconds:
        share = stats.draft_seconds / stats.seconds
        return f"drafting takes {share:.0%} of the time", _other_method(reply, "guesses for less")
    if not stats.drafted:
        return "nothing was guessed: no guess promised a gain", _other_method(
            reply, "may fit better"
        )
    rate = f"{share_right(stats):.0%} of the guesses were right"
    return f"too few for the time they take: {rate}", _other_method(
        reply, "may fit this text better"
    )


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
        return (
            f"{cause}: weights quantised as {kind}",
            "start nfox without it, or with --quantize int8",
        )
    return cause, f"/method {plain_method()} spares what drafting costs"


def _held_up(
    engine: Engine, slower: float, context: float, *, is_slow: bool
) -> tuple[str, str] | None:
    """Return that other programs, or too few threads, hold forwards up; None if they do not.

    Args:
        engine: the engine that answers.
        slower: how many times as long as they should the reply's forwards took.
        context: how many times as long forwards take as after a few tokens, as those at the start
            did.
        is_slow: whether the reply gained nothing: then what else runs is looked at too.
    """
    costs, before, target = engine.costs, engine.costs_at_load, engine.model.target
    if target.device.type != "cpu":
        return None
    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    since = costs.forward_seconds(1) / before.forward_seconds(1) if costs and before else 1.0
    since *= slower  # of this reply, whatever forwards take by now
    is_busy = load > BUSY * cores
    slower, since = slower / max(context, 1.0), since / max(context, 1.0)
    if max(slower, since) > _SLOWER or (is_slow and is_busy):
        signs = [f"load {load:.1f} on {counted(cores, 'core')}"] if is_busy else []
        forwards = "the forwards of this reply took"
        if slower > _SLOWER:
            signs.append(f"{forwards} {slower:.1f} times as long as others do")
        elif since > _SLOWER:
            signs.append(f"{forwards} {since:.1f} times as long as at the start")
        cause = f"a {'busy' if is_busy else 'slower'} machine: {', '.join(signs)}"
        if not is_busy and hasattr(os, "getloadavg"):
            return cause, ""  # nothing else runs: no setting makes a slower processor faster
        return cause, "start nfox with --threads 1" if threads > 1 else "end what else runs"
    if threads < cores and not engine.threads:
        return (
            f"few threads: {threads} of {counted(cores, 'core')}",
            f"start nfox with --threads {cores}, or without --threads",
        )
    return None
