"""Kinds of text, token by token, against a look at the whole text for every token anew."""

from __future__ import annotations

import random
import re
import time
from collections import deque
from collections.abc import Sequence

from nfox.cli.display.text_kinds import kinds_of


def test_kinds_of_text() -> None:
    text = (
        "So ",
        "it ",
        "is.\n",
        "- ",
        "one\n",
        "```",
        "a=",
        "1\n",
        "```",
        "\n",
        "x ",
        "is ",
        "12.\n",
    )
    again = (*text, "So ", "it ", "is.\n")
    assert list(kinds_of(again)) == [
        *("prose", "prose", "prose", "lists", "lists", "code", "code", "code", "code"),
        *("code", "prose", "prose", "numbers", "prose", "prose", "repeated"),
    ]


def kinds_from_the_whole_text(texts: Sequence[str]) -> list[str]:
    """Return the kinds by looking at all that was said, for every token anew."""
    kinds = []
    for end in range(1, len(texts) + 1):
        text, so_far = texts[end - 1], "".join(texts[:end])
        line = so_far.rstrip("\n").rpartition("\n")[2]
        windows = [tuple(texts[i : i + 3]) for i in range(end - 2)]
        if windows and windows[-1] in windows[:-1]:
            kinds.append("repeated")
        elif so_far.count("```") % 2 or "```" in line:
            kinds.append("code")
        elif any(letter.isdigit() for letter in text):
            kinds.append("numbers")
        else:
            kinds.append("lists" if re.match(r"\s*([-*+\u2022]|\d+[.)])\s", line) else "prose")
    return kinds


def test_kinds_of_any_text_are_found_in_one_pass() -> None:
    chance = random.Random(0)
    parts = (
        "a",
        " b",
        "\n",
        "\n\n",
        "`",
        "``",
        "```",
        "````py",
        "- ",
        "1",
        ". ",
        "x\n- ",
        "",
        "\r",
    )
    for _ in range(300):
        texts = chance.choices(parts, k=chance.randint(1, 40))
        assert list(kinds_of(texts)) == kinds_from_the_whole_text(texts)

    def seconds(tokens: int) -> float:
        begin = time.thread_time()
        deque(kinds_of(["word "] * tokens), maxlen=0)
        return time.thread_time() - begin

    assert min(seconds(40_000) for _ in range(3)) < 10 * min(seconds(10_000) for _ in range(3))
