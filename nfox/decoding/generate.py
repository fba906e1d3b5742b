"""The loop: draft, score, verify, commit. One for every method; it yields a Step per forward.

The prompt's last token is the first root, so prefill needs no logits and every forward after it,
the first included, scores a tree.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from nfox.decoding import clock
from nfox.decoding.cache import KVCache
from nfox.decoding.drafter import Context, Drafter, StepTimes
from nfox.decoding.target import Target, are_numbers, check_tokens
from nfox.decoding.tree import Source, TokenTree
from nfox.decoding.verify import Rule, Verdict, verify
from nfox.errors import ContextError, UsageError

FinishReason = Literal["stop", "length", "context"]
"""A stop token was emitted; as many tokens as asked for were; the context is full."""


@dataclass(frozen=True)
class Prompt:
    """Token ids that are decoded on from.

    Args:
        ids: at least one token; for encoder-decoder models those of the decoder.
        encoder_ids: the token ids that the encoder reads; None for decoder-only models.
        continued: whether the last ids are already the reply's: its text goes on from theirs
            instead of starting anew.
        thinking: whether the reply begins inside what the model thinks before it answers.
    """

    ids: tuple[int, ...]
    encoder_ids: tuple[int, ...] | None = None
    continued: bool = False
    thinking: bool = False

    @property
    def length(self) -> int:
        """The tokens that are read: by the encoder, where there is one."""
        return len(self.ids if self.encoder_ids is None else self.encoder_ids)

    def check(self, max_context: int, vocabulary_size: int) -> None:
        """Refuse a prompt that cannot be decoded on from.

        Args:
            max_context: the number of positions there are.
            vocabulary_size: the number of tokens that the target knows.

        Raises:
            ContextError: if the prompt, or what the encoder reads, does not fit.
            UsageError: if it is empty, or has a token that the target does not know.
        """
        for ids in (self.ids, self.encoder_ids):
            if ids is not None and not ids:
                raise UsageError("the prompt has no tokens", "say something")
            if ids is not None and len(ids) > max_context:
                raise ContextError(
                    f"the prompt has {len(ids)} tokens, the context holds {max_context}",
                    "shorten it, or start a new conversation",
                )
            check_tokens(ids or (), vocabulary_size)


@dataclass(frozen=True)
class Limits:
    """What ends a reply, besides whoever cancels it.

    Args:
        max_tokens: the most tokens to emit.
        max_context: the most positions to use; None, or more than the target has, for all it has.
        stop_ids: tokens that end the reply; the one found is emitted, and nothing after it.
    """

    max_tokens: int
    max_context: int | None = None
    stop_ids: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Step:
    """What one target forward after prefill gave.

    Args:
        tokens: the emitted tokens, the accepted ones first.
        sources: where each of them came from.
        tree: what was drafted.
        verdict: what became of it (its path may go on behind a stop token).
        times: the seconds that its parts took.
        finish: why this was the last step; None if it was not.
        logits: [N, V] of the target after every node, if they were asked for.
        choice: what the drafter chose to draft with; "" if it has no choice.
    """

    tokens: tuple[int, ...]
    sources: tuple[Source, ...]
    tree: TokenTree
    verdict: Verdict
    times: StepTimes
    finish: FinishReason | None = None
    logits: Tensor | None = None
    choice: str = ""


def generate(
    target: Target,
    drafter: Drafter,
    prompt: Prompt,
    *,
    cache: KVCache,
    rule: Rule,
    limits: Limits,
    cancelled: Callable[[], bool] | None = None,
    keep_logits: bool = False,
) -> Iterator[Step]:
    """Decode a reply to a prompt, one step for each target forward.

    Args:
        target: the model.
        drafter: the method.
        prompt: what is decoded on from.
        cache: of the conversation so far; what it has in common with the prompt is not read again.
        rule: how tokens are chosen and accepted; a new one for every reply.
        limits: what ends the reply.
        cancelled: asked before every forward; True ends the reply there, after the step that has
            begun.
        keep_logits: put the target's logits into each step.

    Raises:
        ContextError: if the prompt does not fit.
        ModelError: if the target computes logits that are no numbers.
        UsageError: if the prompt is empty, or has a token that the target does not know.
    """
    max_context = min(limits.max_context or target.max_context, target.max_context)
    prompt.check(max_context, target.vocabulary_size)
    reused = cache.reuse(prompt.ids, prompt.encoder_ids)
    drafter.rewind(reused)
    if not target.read(prompt.ids[reused:-1], cache, cancelled):
        return
    root, remaining, verdict = prompt.ids[-1], limits.max_tokens, _BEFORE_FIRST_STEP
    finish: FinishReason | None = None
    times: StepTimes | None = None
    while finish is None and remaining > 0 and not (cancelled and cancelled()):
        timer = _Timer()
        max_depth = min(remaining, max_context - len(cache.tokens)) - 1
        seen = verdict.path, verdict.target_tokens
        context = Context(cache, root, *seen, max_depth, rule, times, cancelled)
        tree = drafter.propose(context)
        verdict.release()
        draft_time = timer.split()
        logits, hidden = target.score(tree, cache)
        if not are_numbers(logits):
            raise target.numbers_error()
        target_time = timer.split()
        verdict = verify(tree, logits, rule, cache.tokens)
        verify_time = timer.split()
        cache.commit(tree, verdict.path, hidden)
        cache_time = timer.split()
        root = verdict.next_token
        tokens, sources = _emitted(tree, verdict, limits.stop_ids)
        remaining -= len(tokens)
        full = len(cache.tokens) >= max_context
        finish = _finish(tokens[-1] in limits.stop_ids, remaining, full)
        times = StepTimes(draft_time, target_time, verify_time, cache_time, timer.split())
        kept = logits if keep_logits else None
        yield Step(tokens, sources, tree, verdict, times, finish, kept, drafter.choice)


_BEFORE_FIRST_STEP = Verdict([], -1, [])


class _Timer:
    """Tells how many seconds have passed since it was made or last asked."""

    def __init__(self) -> None:
        self._last = clock.now()

    def split(self) -> float:
        """Return the seconds since the last split."""
        now = clock.now()
        passed, self._last = now - self._last, now
        return passed


def _emitted(
    tree: TokenTree, verdict: Verdict, stop_ids: Collection[int]
) -> tuple[tuple[int, ...], tuple[Source, ...]]:
    """Return the tokens of a verdict up to the first stop token, and where each came from."""
    tokens = [*(tree.tokens[node] for node in verdict.path[1:]), verdict.next_token]
    # The target's own token corrects a guess where one was made at this place and refused.
    refused = verdict.path[-1] in tree.parents
    sources: list[Source] = ["accepted"] * (len(tokens) - 1)
    sources.append("corrected" if refused else "bonus")
    end = next((i + 1 for i, token in enumerate(tokens) if token in stop_ids), len(tokens))
    return tuple(tokens[:end]), tuple(sources[:end])


def _finish(stopped: bool, remaining: int, full: bool) -> FinishReason | None:
    if stopped:
        return "stop"
    if remaining <= 0:
        return "length"
    return "context" if full else None
