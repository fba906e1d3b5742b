"""Kinds of text, token by token: prose, code, numbers, lists, and what was said before."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

KINDS = ("prose", "code", "numbers", "lists", "repeated")
_FENCE = "```"
_ITEM = re.compile(r"\s*(?:[-*+\u2022]|\d+[.)])\s")
_AGAIN = 3  # tokens in a row that were said in this order before


def kinds_of(texts: Sequence[str]) -> Iterator[str]:
    """Yield the kind of each token of a reply, one of `KINDS`.

    What repeats three tokens of the reply is "repeated", whatever it is; then what stands in a
    fence is "code", what has a digit "numbers", what stands in an item of a list "lists".

    Args:
        texts: the texts of the tokens, with their spaces and newlines.
    """
    seen: set[tuple[str, ...]] = set()
    so_far = ""
    for index, text in enumerate(texts):
        so_far += text
        window = tuple(texts[max(index - _AGAIN + 1, 0) : index + 1])
        line = so_far.rstrip("\n").rpartition("\n")[2]
        if window in seen:
            yield "repeated"
        elif so_far.count(_FENCE) % 2 or _FENCE in line:
            yield "code"
        elif any(letter.isdigit() for letter in text):
            yield "numbers"
        else:
            yield "lists" if _ITEM.match(line) else "prose"
        if len(window) == _AGAIN:
            seen.add(window)
