"""The random numbers of one reply.

The noise of a token depends on (seed, reply, position, token) alone, so the target, however its
tokens were drafted, and whoever drafts see the same: the Gumbel-max trick, argmax(log p + noise)
~ p, then gives one text for one seed.
"""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np
import torch
from numpy.typing import NDArray

from nfox.decoding.target import token_range

_KEPT_ROWS = 32  # of noise, more than a step has positions


def generator_of(seed: int, reply: int) -> torch.Generator:
    """Return what draws the random numbers of one reply, on the CPU.

    Args:
        seed: chosen by the user; torch itself takes no more than its lowest 32 bits.
        reply: which reply of the conversation this is.
    """
    return torch.Generator().manual_seed(_hash_of(seed, reply) % 2**32)


def _hash_of(seed: int, reply: int) -> int:
    """Return 64 bits that depend on both numbers, modulo 2**64."""
    entropy = np.array([seed % 2**64, reply % 2**64], np.uint64).view(np.uint32)
    return int(np.random.SeedSequence(entropy.tolist()).generate_state(1, np.uint64)[0])


class GumbelNoise:
    """Gumbel noise of one reply, the same whoever asks for the same (seed, reply, position, token).

    Args:
        seed: chosen by the user.
        reply: which reply of the conversation this is, so that a regenerated one differs.
    """

    def __init__(self, seed: int, reply: int = 0) -> None:
        self._key = _hash_of(seed, reply)
        # Of the whole vocabulary: a position is asked for by what drafts, and then by the target.
        # They go with the reply at once: what makes them does not refer to this object.
        self._rows = lru_cache(maxsize=_KEPT_ROWS)(partial(_row, self._key))

    def at(self, position: int, tokens: NDArray[np.uint32]) -> NDArray[np.float32]:
        """Return the noise [n] of tokens [n] at a position: -log(-log(u)), where u is a hash of a
        token's id, above 0 and below 1. So it is made for those tokens alone that are asked for,
        and in vectors: NumPy's random numbers, which come one after the other, take twice as long.

        Args:
            position: how many tokens of the conversation come before it.
            tokens: their ids. Noise of `token_range` is kept for a while, and not to be written to.
        """
        if tokens is token_range(len(tokens)):
            return self._rows(position, len(tokens))
        return _noise(self._key, position, tokens)


def _row(key: int, position: int, size: int) -> NDArray[np.float32]:
    """Return the noise [size] of the first tokens, not to be written to."""
    row = _noise(key, position, token_range(size))
    row.flags.writeable = False
    return row


def _noise(key: int, position: int, tokens: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Return the noise [n] of tokens [n] at a position, by the key of a reply."""
    key = _mixed(key ^ position)
    numbers = tokens ^ np.uint32(key >> 32)
    _mix(numbers)
    numbers ^= np.uint32(key % 2**32)
    _mix(numbers)
    # The nearer u is to 1, the larger is the noise: there all 32 bits count.
    near_one = np.flatnonzero(numbers >= np.uint32(2**32 - 2**24))
    to_one = (~numbers[near_one] + np.float32(0.5)) * np.float32(2**-32)
    numbers >>= np.uint32(9)  # as many bits as a float from 1 to 2 has behind the point
    numbers |= np.uint32(0x3F800000)
    values: NDArray[np.float32] = numbers.view(np.float32)
    values -= np.float32(1 - 2**-24)
    np.log(values, out=values)
    values[near_one] = np.log1p(-to_one)
    np.negative(values, out=values)
    np.log(values, out=values)
    return np.negative(values, out=values)


def _mixed(number: int) -> int:
    """Return 64 bits, each of which depends on all 64 of a number: the finalizer of MurmurHash3."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        number = (number ^ number >> 33) * factor % 2**64
    return number ^ number >> 33


def _mix(numbers: NDArray[np.uint32]) -> None:
    """Change numbers so that each bit of one depends on all of its 32: MurmurHash3's finalizer."""
    numbers ^= numbers >> np.uint32(16)
    numbers *= np.uint32(0x85EBCA6B)
    numbers ^= numbers >> np.uint32(13)
    numbers *= np.uint32(0xC2B2AE35)
    numbers ^= numbers >> np.uint32(16)
