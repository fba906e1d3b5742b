"""From logits to the distribution a token is drawn from; target and draft model process theirs
here alike.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import inf, log
from typing import Any

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
        top_p: keep the smallest set of most likely tokens whose probability reaches this, with all
            that are as likely as its last one.
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

    def sample(self, logits: NDArray[Any], noise: NDArray[np.float32]) -> int:
        """Return the token that Gumbel noise draws from the distribution of `log_probabilities`:
        the one with the largest logits / temperature + noise, of those that are not cut off.

        Nothing is sorted. The largest of all is nearly always one that is left. If it is not, then
        no token that is at most as likely is left either, and the largest of the others is tried.

        Args:
            logits: [V], after penalties; float32 or wider, without NaN.
            noise: [V].
        """
        scores = logits / self.temperature + noise
        token = int(scores.argmax())
        while not self._keeps(token, logits):
            scores = np.where(logits > logits[token], scores, -inf)
            token = int(scores.argmax())
        return token

    def _keeps(self, token: int, logits: NDArray[Any]) -> bool:
        """Return whether top-k, top-p and min-p of logits [V] leave a token."""
        likelier = logits > logits[token]
        count = np.count_nonzero(likelier)
        if not count or (self.top_p == 1 and not self.top_k and not self.min_p):
            return True
        if 0 < self.top_k <= count:
            return False
        scaled = logits / self.temperature
        largest = scaled.max()
        if self.min_p and scaled[token] < largest + log(self.min_p):
            return False
        if self.top_p == 1:
            return True
        weights = np.exp(scaled - largest)
        if 0 < self.top_k < len(logits):
            weights[logits < np.partition(logits, -self.top_k)[-self.top_k]] = 0
        return bool(weights[likelier].sum() < self.top_p * weights.sum())

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
    reaches `top_p`, with all that are as likely as its last one, and -inf for all others.
    """
    size, count = logits.shape[-1], 64
    sums = logits.logsumexp(-1, keepdim=True)
    while True:
        likeliest = logits.topk(min(count, size), dim=-1).values
        reached = (likeliest - sums).exp().cumsum(-1)
        if count >= size or bool((reached[..., -1] >= top_p).all()):
            break
        count *= 8
    beyond = reached.roll(1, -1) >= top_p
    beyond[..., 0] = False  # the token that crosses top_p stays, the first one always
    least = likeliest.masked_fill(beyond, torch.inf).amin(-1, keepdim=True)
    return logits.masked_fill(logits < least, -torch.inf)


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
