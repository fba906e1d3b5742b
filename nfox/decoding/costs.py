"""What a forward over several tokens takes, measured when a model is loaded.

Speculation pays where scoring N tokens takes hardly longer than scoring one. That depends on the
model, the dtype, the quantisation and the machine, so it is measured, bounds how much is drafted,
and is shown.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from typing_extensions import override

from nfox.decoding import clock
from nfox.decoding.cache import KVCache
from nfox.decoding.target import Target
from nfox.decoding.tree import TokenTree

WIDTHS = (1, 2, 4, 8, 16, 32)
"""The numbers of tokens whose forward is timed."""

_ROUNDS = 5  # of measuring one thing and another in turn
_ALPHA = 0.8  # the acceptance rate that draft lengths are chosen for, before any was seen


@dataclass(frozen=True)
class Costs:
    """The measured seconds of a target forward over N tokens.

    Args:
        seconds: by N, the width of the forward; at least for width 1.
    """

    seconds: dict[int, float]

    def forward_seconds(self, width: int) -> float:
        """Return the seconds of a forward over `width` tokens, interpolated between the measured
        widths, and in proportion to the width beyond the widest.
        """
        widths = sorted(self.seconds)
        if width in self.seconds:
            return self.seconds[width]
        right = bisect_left(widths, width)
        if right == len(widths):
            return self.seconds[widths[-1]] * width / widths[-1]
        low, high = widths[right - 1], widths[right]
        share = (width - low) / (high - low)
        return self.seconds[low] * (1 - share) + self.seconds[high] * share

    def speedup(
        self,
        gamma: int,
        alpha: float = _ALPHA,
        draft_seconds: float = 0.0,
        other_nodes: int = 0,
    ) -> float:
        """Return the expected speed-up over plain decoding of chains of `gamma` tokens.

        Leviathan et al. 2023 (arXiv 2211.17192), theorem 3.8, with the measured cost of a wide
        forward in it.

        Args:
            gamma: drafted tokens per step.
            alpha: the probability that a drafted token is accepted, given that the one before was.
            draft_seconds: what drafting one token takes.
            other_nodes: nodes beside the chain, which only make the forward wider; there are none
                where gamma is 0.
        """
        tau = expected_tau(alpha, gamma)
        nodes = gamma + other_nodes if gamma else 0
        step_seconds = self.forward_seconds(nodes + 1) + gamma * draft_seconds
        return tau * self.forward_seconds(1) / step_seconds

    def best_gamma(
        self,
        max_gamma: int,
        draft_seconds: float = 0.0,
        other_nodes: int = 0,
        alpha: float = _ALPHA,
    ) -> int:
        """Return the number of drafted tokens per step, `max_gamma` at most, with the largest
        expected speed-up; the other arguments are those of `speedup`.
        """

        def expected_speedup(gamma: int) -> float:
            return self.speedup(gamma, alpha, draft_seconds, other_nodes)

        return max(range(max_gamma + 1), key=expected_speedup)

    @property
    def speculation_pays(self) -> bool:
        """Whether any draft length promises a gain, even if drafting itself cost nothing."""
        return self.best_gamma(max(self.seconds) - 1) > 0

    @override
    def __str__(self) -> str:
        first, widest = self.forward_seconds(1), max(self.seconds)
        widths = [n for n in WIDTHS if n <= widest]
        ratios = ", ".join(f"{n}: {self.forward_seconds(n) / first:.2f}" for n in widths)
        return f"t(1) = {first * 1e3:.1f} ms, t(N)/t(1) = {ratios}"


def expected_tau(alpha: float, gamma: int) -> float:
    """Return the tokens per step to expect of chains (Leviathan et al. 2023, equation 1).

    Args:
        alpha: the probability that a drafted token is accepted, given that the one before was.
        gamma: drafted tokens per step.
    """
    return gamma + 1.0 if alpha == 1 else (1 - alpha ** (gamma + 1)) / (1 - alpha)


def draft_length(
    requested: int | None,
    max_length: int,
    costs: Costs | None,
    other_nodes: int = 0,
) -> int:
    """Return how many tokens to draft in a chain.

    Args:
        requested: the number that the person asked for, which is taken as it is; None for none.
        max_length: the most tokens where none was asked for; fewer where that is faster.
        costs: of the target's forwards; None if they were not measured.
        other_nodes: nodes of the tree beside the chain.
    """
    if requested is not None:
        return requested
    return costs.best_gamma(max_length, other_nodes=other_nodes) if costs else max_length


def idle_reason(draft_length: int, *, is_explicit: bool) -> str:
    """Return in a few words why a method drafts nothing; "" if it drafts something.

    Args:
        draft_length: the number of tokens that it drafts in a step.
        is_explicit: whether the person asked for this number, so that the costs did not choose it.
    """
    if draft_length:
        return ""
    return "as asked for" if is_explicit else "drafting does not pay on this machine"


def time_call(call: Callable[[], object], device: torch.device) -> float:
    """Return how many seconds a call takes, the kernels that it starts on the device included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = clock.now()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock.now() - start


def sample_cache(target: Target) -> KVCache:
    """Return a cache in which a target has read a few tokens, to time a forward after them."""
    cache = target.new_cache()
    cache.reuse([0], (0,) if target.is_encoder_decoder else None)
    target.read([i % target.vocabulary_size for i in range(8)], cache)
    return cache


def context_slowdown(target: Target, cache: KVCache) -> float:
    """Return how many times as long a forward over one token takes after what a cache holds as
    after a few tokens: both are timed now, in turn, so that other programs slow both.

    Args:
        target: the model.
        cache: what it has read, which stays as it is; 1 is returned for one that cannot be rolled
            back, and for one that is full.
    """
    if not cache.can_roll_back or len(cache.tokens) >= target.max_context:
        return 1.0
    short, long = (
        partial(target.score, TokenTree.chain(0), each) for each in (sample_cache(target), cache)
    )
    times = [
        (time_call(short, target.device), time_call(long, target.device)) for _ in range(_ROUNDS)
    ]
    return min(after for _, after in times) / min(before for before, _ in times)


def measure_costs(target: Target, *, time_limit: float = 1.0) -> Costs:
    """Time a target's forwards over several numbers of tokens, after a few tokens read.

    Args:
        target: the model. One that can score nothing but the root is timed at width 1 only.
        time_limit: about how many seconds to spend. A slow model is timed less often, and at fewer
            widths.
    """
    cache = sample_cache(target)
    room = target.max_context - len(cache.tokens) if target.proposals != "nothing" else 1
    widths = [width for width in WIDTHS if width <= max(room, 1)]
    begin, seconds = clock.now(), {}
    for width in widths:
        tree = TokenTree.chain(0, [i % target.vocabulary_size for i in range(1, width)])
        score = partial(target.score, tree, cache)
        score()  # the first of a width is slower
        times = [time_call(score, target.device)]
        while len(times) < 5 and clock.now() - begin < time_limit:
            times.append(time_call(score, target.device))
        seconds[width] = min(times)  # whatever else the machine does only adds to it
        if clock.now() - begin > 2 * time_limit and width > 1:
            break
    # If something narrower took longer, or something wide longer than narrow forwards one after the
    # other would, the machine was busy with something else.
    seconds = {n: min(s for m, s in seconds.items() if m >= n) for n in seconds}
    return Costs({n: min(s * -(-n // m) for m, s in seconds.items() if m <= n) for n in seconds})
