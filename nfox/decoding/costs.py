"""What a forward over several tokens takes, measured when a model is loaded.

Speculation pays where scoring N tokens takes hardly longer than scoring one. That depends on the
model, the dtype, the quantisation and the machine, so it is measured, bounds how much is drafted,
and is shown.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from typing_extensions import override

from nfox.decoding.cache import KVCache
from nfox.decoding.target import Target
from nfox.decoding.tree import TokenTree

WIDTHS = (1, 2, 4, 8, 16, 32)

_ALPHA = 0.8  # the acceptance rate that draft lengths are chosen for, before any was seen


@dataclass(frozen=True)
class Costs:
    """Seconds of one target forward over N tokens.

    Args:
        seconds: by width; at least width 1.
    """

    seconds: dict[int, float]

    def at(self, width: int) -> float:
        """Return the seconds for a width, interpolated between measured ones."""
        known = sorted(self.seconds)
        if width in self.seconds:
            return self.seconds[width]
        right = bisect_left(known, width)
        if right == len(known):  # beyond the widest: in proportion
            return self.seconds[known[-1]] * width / known[-1]
        low, high = known[right - 1], known[right]
        part = (width - low) / (high - low)
        return self.seconds[low] * (1 - part) + self.seconds[high] * part

    def speedup(
        self,
        gamma: int,
        alpha: float = _ALPHA,
        draft: float = 0.0,
        beside: int = 0,
    ) -> float:
        """Return the expected speed-up over plain decoding of chains of `gamma` tokens.

        Leviathan et al. 2023, theorem 3.8, with the measured cost of a wide forward in it.

        Args:
            gamma: drafted tokens per step.
            alpha: chance that one is accepted, given that the one before was.
            draft: seconds per drafted token.
            beside: other nodes, which only make the forward wider, wherever anything is drafted.
        """
        tau = expected_tau(alpha, gamma)
        nodes = gamma + beside if gamma else 0
        return tau * self.at(1) / (self.at(nodes + 1) + gamma * draft)

    def best_gamma(
        self,
        most: int,
        draft: float = 0.0,
        beside: int = 0,
        alpha: float = _ALPHA,
    ) -> int:
        """Return the draft length of at most `most` tokens that promises the most speed."""

        def promise(gamma: int) -> float:
            return self.speedup(gamma, alpha, draft, beside)

        return max(range(most + 1), key=promise)

    @property
    def pays(self) -> bool:
        """Whether any draft length promises a gain, even if drafting itself cost nothing."""
        return self.best_gamma(max(self.seconds) - 1) > 0

    @override
    def __str__(self) -> str:
        first = self.at(1)
        ratios = ", ".join(f"{n}: {t / first:.2f}" for n, t in sorted(self.seconds.items()))
        return f"t(1) = {first * 1e3:.1f} ms, t(N)/t(1) = {ratios}"


def expected_tau(alpha: float, gamma: int) -> float:
    """Return the tokens per step to expect of chains (Leviathan et al. 2023, equation 1).

    Args:
        alpha: chance that a drafted token is accepted, given that the one before was.
        gamma: drafted tokens per step.
    """
    return gamma + 1.0 if alpha == 1 else (1 - alpha ** (gamma + 1)) / (1 - alpha)


def idle_reason(length: int, *, given: bool) -> str:
    """Say in a few words why nothing is drafted; "" where something is.

    Args:
        length: of drafts.
        given: whether the person said so, and not the costs.
    """
    if length:
        return ""
    why = "as asked for" if given else "drafting does not pay on this machine"
    return f"; plain decoding, {why}"


def timed(act: Callable[[], object], device: torch.device) -> float:
    """Return how many seconds `act` takes, kernels on the device included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    act()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def short_past(target: Target) -> KVCache:
    """Return a cache with a few tokens in it, to time something after."""
    cache = target.new_cache()
    cache.reuse([0], (0,) if target.is_encoder_decoder else None)
    target.read([i % target.vocabulary_size for i in range(8)], cache)
    return cache


def measure(target: Target, *, budget: float = 1.0) -> Costs:
    """Time forwards of several widths over a short past.

    Args:
        target: the model; its `proposals` say whether it takes more than one token.
        budget: seconds to spend, about. A slow model is timed less often and at fewer widths.
    """
    cache = short_past(target)
    widths = WIDTHS if target.proposals != "nothing" else (1,)
    begin, seconds = time.perf_counter(), {}
    for width in widths:
        tree = TokenTree.chain(0, [i % target.vocabulary_size for i in range(1, width)])
        score = partial(target.score, tree, cache)
        score()  # the first of a width is slower
        times = [timed(score, target.device)]
        while len(times) < 5 and time.perf_counter() - begin < budget:
            times.append(timed(score, target.device))
        seconds[width] = min(times)  # whatever else the machine does only adds to it
        if time.perf_counter() - begin > 2 * budget and width > 1:
            break
    # Nothing narrower takes longer; if it seemed to, the machine was busy with something else.
    return Costs({n: min(s for m, s in seconds.items() if m >= n) for n in seconds})
