"""From logits to the distribution a token is drawn from, and the noise it is drawn with.

Target and draft model process their logits here alike. The noise of one position depends on
(seed, reply, position) alone, so every method and the draft model see the same: the Gumbel-max
trick, argmax(log p + noise) ~ p, then gives one text for one seed, however it was drafted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import inf, log

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nfox.decoding.target import as_array
from nfox.errors import UsageError

_RANGES = (
    "temperature >= 0, top_k >= 0, 0 < top_p <= 1, 0 <= min_p <= 1, "
    "0.01 <= repetition_penalty <= 100"
)
_MIN_TEMPERATURE = 1e-5  # below, only rounding tells two tokens apart, and float32 overflows


def likeliest_tokens(logits: Tensor) -> list[int]:
    """Return the token with the largest of each row of logits [N, V], the first of equal ones.

    On a CPU torch looks at number after number and wakes its threads for it: NumPy takes an eighth
    of the time.
    """
    tokens = (as_array(logits) if logits.device.type == "cpu" else logits).argmax(-1)
    found: list[int] = tokens.tolist()
    return found


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen from logits. The defaults are greedy decoding.

    Args:
        temperature: 0 takes the most likely token, and so does anything below 0.00001.
        top_k: keep only the k most likely tokens (0: all).
        top_p: keep the smallest set of most likely tokens whose probability reaches this.
        min_p: keep tokens at least this many times as likely as the most likely one.
        repetition_penalty: divide the logits of tokens seen before (1: no penalty); Keskar et al.
            2019, the definition of transformers. Applied along each path of a tree.
        seed: of the noise.

    Raises:
        UsageError: for a number out of its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        ranges = {
            "temperature": 0 <= self.temperature < inf,
            "top_k": self.top_k >= 0,
            "top_p": 0 < self.top_p <= 1,
            "min_p": 0 <= self.min_p <= 1,
            "repetition_penalty": 0.01 <= self.repetition_penalty <= 100,
        }
        for name, fits in ranges.items():
            if not fits:
                raise UsageError(f"{name} cannot be {getattr(self, name)}", _RANGES)

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature < _MIN_TEMPERATURE

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Return the log-probabilities after temperature, top-k, top-p and min-p, in that order.
        Greedy decoding has none.

        Args:
            logits: [..., V], after penalties; float32 or wider.

        Returns:
            [..., V]; -inf where a token was cut off.
        """
        logits = logits / self.temperature
        if 0 < self.top_k < logits.shape[-1]:
            kth = logits.topk(self.top_k, dim=-1).values[..., -1:]
            logits = logits.masked_fill(logits < kth, -torch.inf)
        if self.top_p < 1:
            logits = _nucleus(logits, self.top_p)
        if self.min_p > 0:
            least = logits.amax(-1, keepdim=True) + log(self.min_p)
            logits = logits.masked_fill(logits < least, -torch.inf)
        return logits.log_softmax(-1)

    def penalise(self, logits: Tensor, seen: Collection[int]) -> Tensor:
        """Return [..., V] logits after the repetition penalty.

        Args:
            logits: [..., V] of the next token.
            seen: the tokens before it, each of which is penalised once.
        """
        if self.repetition_penalty == 1 or not seen:
            return logits
        tokens = torch.tensor(list(set(seen)), device=logits.device)
        lessened = _lessened(logits[..., tokens], self.repetition_penalty)
        return logits.index_copy(-1, tokens, lessened)


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Return [..., V] the logits of the smallest set of most likely tokens whose probability
    reaches `top_p`, and -inf for all others.

    Only tokens that may be in it are put in order: those below (1 - top_p) / V have together less
    than what is cut off.
    """
    probabilities = logits.softmax(-1)
    size = logits.shape[-1]
    possible = int((probabilities >= (1 - top_p) / size).sum(-1).max())
    likeliest, tokens = probabilities.topk(min(max(possible, 1), size))
    beyond = likeliest.cumsum(-1).roll(1, -1) >= top_p
    beyond[..., 0] = False  # the token that crosses top_p stays, the first one always
    kept = logits.gather(-1, tokens).masked_fill(beyond, -torch.inf)
    return torch.full_like(logits, -torch.inf).scatter(-1, tokens, kept)


def penalise_in_rows(
    logits: Tensor, penalty: float, rows: Sequence[int], tokens: Sequence[int]
) -> Tensor:
    """Return [N, V] logits of which one token is penalised in one row, as often as there are rows.

    Args:
        logits: [N, V] of the next tokens.
        penalty: the repetition penalty.
        rows: each with its token; no such pair may be there twice.
        tokens: as many.
    """
    pairs = torch.tensor([rows, tokens], dtype=torch.long, device=logits.device).unbind()
    return logits.index_put(pairs, _lessened(logits[pairs], penalty))


def _lessened(logits: Tensor, penalty: float) -> Tensor:
    """Return the logits of tokens that were seen, in any shape, after the repetition penalty."""
    return torch.where(logits > 0, logits / penalty, logits * penalty)


def generator_of(seed: int, reply: int) -> torch.Generator:
    """Return what draws the random numbers of one reply, on the CPU.

    Args:
        seed: chosen by the user; torch itself takes no more than its lowest 32 bits.
        reply: which reply of the conversation this is.
    """
    entropy = _key_of(seed, reply).view(np.uint32).tolist()  # as many words for every key
    return torch.Generator().manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))


def _key_of(seed: int, reply: int) -> NDArray[np.uint64]:
    return np.array([seed % 2**64, reply % 2**64], np.uint64)


class GumbelNoise:
    """Gumbel noise of one reply, the same whoever asks for the same (seed, reply, position).

    Args:
        seed: chosen by the user.
        reply: which reply of the conversation this is, so that a regenerated one differs.
    """

    def __init__(self, seed: int, reply: int = 0) -> None:
        self._key = _key_of(seed, reply)
        self._rows: dict[tuple[int, int], Tensor] = {}

    def at(self, position: int, size: int) -> Tensor:
        """Return [size] float32 noise for the token at a position.

        Args:
            position: how many tokens of the conversation come before it.
            size: of the vocabulary.
        """
        row = self._rows.get((position, size))
        if row is None:
            # A counter has 256 bits, of which a row needs the lowest few: those of others are far.
            counter = np.array([0, 0, position, 0], np.uint64)
            generator = np.random.Generator(np.random.Philox(key=self._key, counter=counter))
            exponential = generator.standard_exponential(size, np.float32)
            row = self._rows[position, size] = -torch.from_numpy(exponential).log()
        return row

    def forget_before(self, position: int) -> None:
        """Give back the memory of noise before a position; who asks for it again gets the same."""
        self._rows = {key: row for key, row in self._rows.items() if key[0] >= position}
