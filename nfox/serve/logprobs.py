"""Log-probabilities of a reply's tokens: the target's own, before temperature, top-k and so on."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nfox.decoding.cache import common_prefix
from nfox.decoding.generate import Step
from nfox.reply import Reply
from nfox.text.stream import TextStream, decode_text

_LEAST_LOGPROB = -9999.0  # stands for minus infinity and NaN, which JSON does not have
_CONTEXT = 8  # tokens of the past that are enough to tell what one more adds to the text


@dataclass(frozen=True)
class TokenLogprob:
    """The log-probability of a token at its place in a reply.

    Args:
        token: the token's id.
        text: what the token adds to the text.
        logprob: the natural logarithm of the token's probability under the target.
        top: the likeliest tokens at the same place, the likeliest first; their own `top` is empty.
    """

    token: int
    text: str
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


class SpelledLogprobs:
    """The log-probabilities of a reply's tokens, each with what its token adds to the reply's text.

    The texts, joined, are the text of the reply: without the space that it leaves out at its
    beginning and without what a stop string cuts off. A character that several tokens make up
    belongs to the last of them. What a token adds may be known only when later tokens have come.

    Args:
        tokenizer: the model's tokenizer.
        begun: the token ids that the reply goes on from; empty where its text starts anew.
        top_count: the number of likeliest tokens that are wanted at every place.

    Attributes:
        count: the number of tokens that were added.
        told: the log-probabilities that were returned.
    """

    def __init__(self, tokenizer: Any, begun: Sequence[int], top_count: int) -> None:
        self.count = 0
        self.told: list[TokenLogprob] = []
        self._told_length = 0  # of their texts, in characters
        self._tokenizer = tokenizer
        self._top_count = top_count
        self._stream = TextStream(tokenizer, context=begun, trim=not begun)  # finds no stop strings
        self._past = list(begun[-_CONTEXT:])  # the last tokens whose text is known
        self._unspelled: list[TokenLogprob] = []  # the tokens after them
        self._waiting: deque[TokenLogprob] = deque()  # whose text is known, but has not left

    def add(self, step: Step, count: int) -> None:
        """Take the first tokens of a step.

        Args:
            step: a step of the loop, with the target's logits.
            count: the number of the step's tokens that belong to the reply.
        """
        if step.logits is None or count <= 0:
            return
        self.count += count
        # The logits of a node on the accepted path are those of the token that follows the node.
        rows = step.logits[step.verdict.path[:count]].log_softmax(-1)  # [count, V]
        likeliest = rows.topk(min(self._top_count, rows.shape[-1]))
        top_rows = zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
        for token, row, top_row in zip(step.tokens[:count], rows, top_rows, strict=True):
            top = self._alternatives(*top_row)
            self._unspelled.append(TokenLogprob(token, "", _finite(float(row[token])), top))
            begin = len(self._stream.text)
            self._stream.push(token, "bonus", 0)
            if len(self._stream.text) > begin:
                self._spell(begin)

    def certain(self, length: int) -> tuple[TokenLogprob, ...]:
        """Return what was not returned before and whose text has left.

        Args:
            length: the number of characters of the reply's text that have left.
        """
        told_before = len(self.told)
        while self._waiting and self._told_length + len(self._waiting[0].text) <= length:
            self._tell(self._waiting.popleft())
        return tuple(self.told[told_before:])

    def finish(self, reply: Reply) -> tuple[TokenLogprob, ...]:
        """Return what was not returned before of a complete reply, whose last token may be cut."""
        begin = len(self._stream.text)
        self._stream.finish()
        self._spell(begin)
        told_before = len(self.told)
        self.certain(len(reply.text))
        if self._waiting and (left := len(reply.text) - self._told_length):
            self._tell(_spelled(self._waiting[0], self._waiting[0].text[:left]))
        return tuple(self.told[told_before:])

    def _tell(self, logprob: TokenLogprob) -> None:
        self.told.append(logprob)
        self._told_length += len(logprob.text)

    def _alternatives(
        self, tokens: Sequence[int], logprobs: Sequence[float]
    ) -> tuple[TokenLogprob, ...]:
        """Return the likeliest tokens at the next place, with what they would add to the text."""
        past = [*self._past, *(logprob.token for logprob in self._unspelled)]
        before, after_begin = decode_text(self._tokenizer, past), bool(past)

        def text(token: int) -> str:
            with_it = decode_text(self._tokenizer, [*past, token])
            added = with_it.removeprefix(before) if with_it.startswith(before) else ""
            # A special token has no text in a reply, but a name.
            added = added or str(self._tokenizer.decode([token]))
            return added if after_begin else added.removeprefix(" ")

        return tuple(
            TokenLogprob(token, text(token), _finite(logprob))
            for token, logprob in zip(tokens, logprobs, strict=True)
        )

    def _spell(self, begin: int) -> None:
        """Divide the text from a place on among the tokens that it came from."""
        added, tokens = self._stream.text[begin:], [each.token for each in self._unspelled]
        whole, end = decode_text(self._tokenizer, [*self._past, *tokens]), 0
        for number, logprob in enumerate(self._unspelled, 1):
            before, end = end, len(added)
            if number < len(tokens):
                known = decode_text(self._tokenizer, [*self._past, *tokens[:number]])
                shared = common_prefix(known, whole) - (len(whole) - len(added))
                end = min(max(shared, before), len(added))
            self._waiting.append(_spelled(logprob, added[before:end]))
        self._past = [*self._past, *tokens][-_CONTEXT:]
        self._unspelled.clear()


def _spelled(logprob: TokenLogprob, text: str) -> TokenLogprob:
    """Return a log-probability with a text for its token, also among the likeliest ones."""
    token = logprob.token
    top = tuple(replace(each, text=text) if each.token == token else each for each in logprob.top)
    return replace(logprob, text=text, top=top)


def _finite(logprob: float) -> float:
    return logprob if logprob > _LEAST_LOGPROB else _LEAST_LOGPROB
