"""The loop: draft, score, verify, commit. One for every method; it yields a Step per forward.

The prompt's last token is the first root, so prefill needs no logits and every forward after it,
the first included, scores a tree.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from nfox.decoding.cache import KVCache
from nfox.decoding.drafter import Context, Drafter
from nfox.decoding.target import Target
from nfox.decoding.tree import Source, TokenTree
from nfox.decoding.verify import Rule, Verdict, verify
from nfox.errors import ContextError, UsageError

FinishReason = Literal["stop", "length", "context", "interrupt"]
"""A stop token; as many tokens as asked for; the context is full; the caller said so."""


@dataclass(frozen=True)
class Seconds:
    """Where the time of a step went: each part by itself, `other` is the loop's own."""

    draft: float
    target: float
    verify: float
    cache: float
    other: float

    @property
    def total(self) -> float:
        """Of the whole step."""
        return self.draft + self.target + self.verify + self.cache + self.other


@dataclass(frozen=True)
class Step:
    """What one target forward after prefill gave.

    Args:
        tokens: emitted, the accepted ones first.
        sources: where each of them came from.
        tree: what was drafted.
        verdict: what became of it (its path may go on behind a stop token).
        seconds: where the time went.
        finish: why this was the last step, or None.
        logits: [N, V] of the target, if they were asked for.
    """

    tokens: tuple[int, ...]
    sources: tuple[Source, ...]
    tree: TokenTree
    verdict: Verdict
    seconds: Seconds
    finish: FinishReason | None = None
    logits: Tensor | None = None


def generate(
    target: Target,
    drafter: Drafter,
    prompt: Sequence[int],
    *,
    cache: KVCache,
    rule: Rule,
    max_tokens: int,
    stop_ids: Collection[int] = (),
    source: tuple[int, ...] | None = None,
    max_context: int | None = None,
    stop: Callable[[], bool] | None = None,
    keep_logits: bool = False,
) -> Iterator[Step]:
    """Decode a reply to `prompt`, one step per target forward.

    Args:
        target: the model.
        drafter: the method.
        prompt: token ids, at least one. For encoder-decoder models the decoder's.
        cache: of the conversation so far; what it has in common with the prompt is not read again.
        rule: how tokens are chosen and accepted; a new one for every reply.
        max_tokens: the most tokens to emit.
        stop_ids: tokens that end the reply; the one found is emitted, and nothing after it.
        source: what the encoder reads, for encoder-decoder models.
        max_context: positions to use at most; the target's own limit by default.
        stop: asked before every forward; True ends the reply.
        keep_logits: put the target's logits into each step.

    Raises:
        ContextError: if the prompt does not fit.
        UsageError: if it is empty.
    """
    limit = min(max_context or target.max_context, target.max_context)
    check_prompt(prompt, limit)
    keep = cache.reuse(prompt, source)
    drafter.rewind(keep)
    if not target.read(prompt[keep:-1], cache, stop):
        return
    root, left, verdict = prompt[-1], max_tokens, _NOTHING
    finish: FinishReason | None = None
    while finish is None and left > 0 and not (stop and stop()):
        lap = _stopwatch()
        room = min(left, limit - len(cache.tokens)) - 1
        tree = drafter.propose(
            Context(cache, root, verdict.path, verdict.target_tokens, room, rule)
        )
        draft_time = lap()
        logits, hidden = target.score(tree, cache)
        target_time = lap()
        verdict = verify(tree, logits, rule, cache.tokens)
        verify_time = lap()
        cache.commit(tree, verdict.path, hidden)
        cache_time = lap()
        root = verdict.bonus
        tokens, sources = _emitted(tree, verdict, stop_ids)
        left -= len(tokens)
        finish = _finish(tokens[-1] in stop_ids, left, len(cache.tokens) >= limit)
        seconds = Seconds(draft_time, target_time, verify_time, cache_time, lap())
        yield Step(tokens, sources, tree, verdict, seconds, finish, logits if keep_logits else None)


def check_prompt(prompt: Sequence[int], limit: int) -> None:
    """Refuse what cannot be decoded on from.

    Args:
        prompt: token ids.
        limit: positions there are.

    Raises:
        ContextError: if it does not fit.
        UsageError: if it is empty.
    """
    if not prompt:
        raise UsageError("the prompt has no tokens", "say something")
    if len(prompt) > limit:
        raise ContextError(
            f"the prompt has {len(prompt)} tokens, the context holds {limit}",
            "shorten it, or start a new conversation",
        )


_NOTHING = Verdict([], -1, [])


def _stopwatch() -> Callable[[], float]:
    """Return a function that says how many seconds have gone since it was last called."""
    last = time.perf_counter()

    def lap() -> float:
        nonlocal last
        now = time.perf_counter()
        gone, last = now - last, now
        return gone

    return lap


def _emitted(
    tree: TokenTree, verdict: Verdict, stop_ids: Collection[int]
) -> tuple[tuple[int, ...], tuple[Source, ...]]:
    """Return the tokens of a verdict up to the first stop token, and where each came from."""
    tokens = [*(tree.tokens[node] for node in verdict.path[1:]), verdict.bonus]
    # The target's own token corrects a guess where one was made at this place and refused.
    refused = verdict.path[-1] in tree.parents
    sources: list[Source] = ["accepted"] * (len(tokens) - 1)
    sources.append("corrected" if refused else "bonus")
    end = next((i + 1 for i, token in enumerate(tokens) if token in stop_ids), len(tokens))
    return tuple(tokens[:end]), tuple(sources[:end])


def _finish(stopped: bool, left: int, full: bool) -> FinishReason | None:
    if stopped:
        return "stop"
    if left <= 0:
        return "length"
    return "context" if full else None
