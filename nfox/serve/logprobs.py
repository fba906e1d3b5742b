"""Log-probabilities of a reply's tokens: the target's own, before temperature, top-k and so on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nfox.decoding.generate import Step
from nfox.reply import Reply
from nfox.text.stream import decode_text

_LEAST_LOGPROB = -9999.0  # stands for minus infinity and NaN, which JSON does not have


@dataclass(frozen=True)
class TokenLogprob:
    """The log-probability of a token at its place in a reply.

    Args:
        token: the token's id.
        text: the text of this token alone.
        logprob: the natural logarithm of the token's probability under the target.
        top: the likeliest tokens at the same place, the likeliest first; their own `top` is empty.
    """

    token: int
    text: str
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


def step_logprobs(
    tokenizer: Any, step: Step, count: int, top_count: int
) -> tuple[TokenLogprob, ...]:
    """Return the log-probabilities of the first tokens of a step.

    Args:
        tokenizer: the model's tokenizer.
        step: a step of the loop, with the target's logits.
        count: the number of the step's tokens that are wanted.
        top_count: the number of likeliest tokens that are wanted at every place.
    """
    if step.logits is None or count <= 0:
        return ()
    # The logits of a node on the accepted path are those of the token that follows the node.
    rows = step.logits[step.verdict.path[:count]].log_softmax(-1)  # [count, V]
    likeliest = rows.topk(min(top_count, rows.shape[-1]))
    top_rows = zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)

    def token_logprob(
        token: int, logprob: float, top: tuple[TokenLogprob, ...] = ()
    ) -> TokenLogprob:
        finite = logprob if logprob > _LEAST_LOGPROB else _LEAST_LOGPROB
        return TokenLogprob(token, tokenizer.decode([token]), finite, top)

    return tuple(
        token_logprob(token, float(row[token]), tuple(map(token_logprob, *top_row)))
        for token, row, top_row in zip(step.tokens[:count], rows, top_rows, strict=True)
    )


def visible_count(
    tokenizer: Any, begun: Sequence[int], reply: Reply, logprobs: Sequence[TokenLogprob]
) -> int:
    """Return the number of tokens whose text, or a part of it, is in the text of a reply.

    Args:
        tokenizer: the model's tokenizer.
        begun: the token ids that the reply continues; empty where its text starts anew.
        reply: the complete reply.
        logprobs: its tokens, with those that a stop string cut off.
    """
    if reply.ids or not reply.text:
        return len(reply.ids)
    # The text was cut inside a token, so that the reply's token ids are not known any more.
    text_before = decode_text(tokenizer, begun)
    for count in range(1, len(logprobs)):
        ids = [logprob.token for logprob in logprobs[:count]]
        text = decode_text(tokenizer, [*begun, *ids])[len(text_before) :]
        if len(text if begun else text.removeprefix(" ")) >= len(reply.text):
            return count
    return len(logprobs)
