"""Log-probabilities of the tokens of a reply: the target's own, before temperature and the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nfox.decoding.generate import Step

_LEAST = -9999.0  # JSON has neither infinities nor what is no number


@dataclass(frozen=True)
class Score:
    """How likely a token was.

    Args:
        token: its id.
        text: of it alone.
        logprob: natural logarithm of its probability.
        top: the likeliest tokens at its place, as scores without such.
    """

    token: int
    text: str
    logprob: float
    top: tuple[Score, ...] = ()


def scores(tokenizer: Any, step: Step, count: int, top: int) -> tuple[Score, ...]:
    """Return the scores of a step's first tokens.

    Args:
        tokenizer: of the model.
        step: with the target's logits.
        count: how many of its tokens.
        top: how many likeliest tokens to tell at every place.
    """
    if step.logits is None or count <= 0:
        return ()
    # The token after a node of the accepted path is foretold by the node's own logits.
    rows = step.logits[step.verdict.path[:count]].log_softmax(-1)
    best = rows.topk(min(top, rows.shape[-1]))
    ranked = zip(best.indices.tolist(), best.values.tolist(), strict=True)

    def score(token: int, logprob: float, likeliest: tuple[Score, ...] = ()) -> Score:
        told = logprob if logprob > _LEAST else _LEAST
        return Score(token, tokenizer.decode([token]), told, likeliest)

    return tuple(
        score(token, float(row[token]), tuple(map(score, *others)))
        for token, row, others in zip(step.tokens[:count], rows, ranked, strict=True)
    )
