"""Numbers with their nouns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nfox.counting import counted

_ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("count", "noun", "words"),
    [
        (0, "step", "0 steps"),
        (1, "step", "1 step"),
        (1234, "token", "1,234 tokens"),
        (1, "guess", "1 guess"),
        (2, "guess", "2 guesses"),
    ],
)
def test_one_thing_has_no_plural(count: int, noun: str, words: str) -> None:
    assert counted(count, noun) == words


def test_plurals_are_made_in_one_place() -> None:
    by_hand = re.compile(r"\{['\"]{2} if .{1,40} == 1 else ['\"]e?s['\"]\}")
    for folder in ("nfox", "cli"):
        for file in (_ROOT / folder).rglob("*.py"):
            if file.name != "counting.py":
                assert not by_hand.search(file.read_text(encoding="utf-8")), file
