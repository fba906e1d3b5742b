"""How many threads forwards on a CPU take: one, or all that there are.

On a machine that other programs keep busy, all threads wait in every layer for the one that was
held up, and a single one is faster. That changes while a model is in use.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median

import torch
from typing_extensions import override

from nfox.decoding.costs import sample_cache, time_call
from nfox.decoding.target import Target
from nfox.decoding.tree import TokenTree

_WIDTHS = (1, 8)  # tokens of the forwards that are timed: plain, and with some guesses
_REPEATS = 5  # the middle time counts: being held up now and then is what is looked for
_LONG = 1.0  # seconds that forwards may take with one thread to be tried: large ones gain by all
_GAIN = 1.1  # by which the other number of threads must be faster

_most_threads: dict[int, int] = {}
"""How many threads there were where fewer were chosen, of which torch knows no more."""


class ThreadChoice:
    """Chooses between one thread and all, for the forwards of a target.

    Args:
        target: the model.

    Attributes:
        target: the model.
        most: the threads that there are: as many as torch was to use.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.most = _most_threads.get(torch.get_num_threads(), torch.get_num_threads())
        self._occasions = 0

    def choose(self) -> bool:
        """Time forwards with one thread and with all, and use the faster number from now on.

        Returns:
            Whether it is another one than before.
        """
        now = torch.get_num_threads()
        if self.most == 1 or self.target.device.type != "cpu":
            return False
        other, chosen = self.most if now == 1 else 1, now
        try:
            mine = self._seconds(now)
            is_tried = now == 1 or self.most * mine < _LONG
            if is_tried and _GAIN * self._seconds(other) < mine:
                chosen = other
        finally:  # also after an interrupt
            _most_threads[chosen] = self.most
            torch.set_num_threads(chosen)
        return chosen != now

    def choose_again(self, *, is_slow: bool) -> bool:
        """Choose anew on the 1st, 2nd, 4th, 8th, ... occasion.

        Args:
            is_slow: whether steps take much longer than they did. An occasion is also each reply
                that was given with one thread, since a machine is not busy for ever.

        Returns:
            Whether it is another number than before.
        """
        if not is_slow and torch.get_num_threads() == self.most:
            return False
        self._occasions += 1
        return self._occasions.bit_count() == 1 and self.choose()

    def _seconds(self, threads: int) -> float:
        """Return the seconds of forwards of several widths with so many threads."""
        torch.set_num_threads(threads)
        cache, total = sample_cache(self.target), 0.0
        for width in _WIDTHS if self.target.proposals != "nothing" else (1,):
            tree = TokenTree.chain(0, [n % self.target.vocabulary_size for n in range(1, width)])
            score = partial(self.target.score, tree, cache)
            first = time_call(score, self.target.device)  # which is slower
            repeats = _REPEATS if first < _LONG / 10 else 1
            total += median(time_call(score, self.target.device) for _ in range(repeats))
        return total

    @override
    def __str__(self) -> str:
        now = torch.get_num_threads()
        others = "all" if now < self.most else "one"
        why = f", since {others} would be slower" if self.most > 1 else ""
        return f"{now} of {self.most}{why}"


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread in this block, and as many as before behind it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def use_threads(target: Target, count: int | None) -> ThreadChoice | None:
    """Use so many threads from now on; None for the faster of one and all, which is chosen by what
    is returned, now and later.
    """
    if count is not None:
        torch.set_num_threads(count)
        return None
    choice = ThreadChoice(target)
    choice.choose()
    return choice
