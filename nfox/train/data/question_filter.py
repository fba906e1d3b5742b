"""Which of a model's own questions are asked."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from nfox.errors import UsageError

_FEWEST_WORDS, _FEWEST_LETTERS = 2, 8
_UNSPACED = 0x0E00
"""The first code point of the scripts that put no spaces between words, Thai to Chinese."""

_REPEATED = 0.4
"""The share of different words below which a question of a dozen words or more repeats itself."""

_BEGINNING = 60
"""Letters by which two questions are told apart: those that go on differently ask the same."""

REASONS = ("unended", "short", "repeated", "foreign")
"""Why questions are not asked, as `QuestionFilter.reason_against` names it."""


class QuestionFilter:
    """Says which sampled questions are asked, and why others are not.

    Args:
        script: the name of a script as Unicode has it, such as latin: questions of which more than
            one letter in twenty is of another are left out; None allows all.
        asked: questions that have been asked already.

    Raises:
        UsageError: if no letter is of the script.
    """

    def __init__(self, script: str | None = None, asked: Iterable[str] = ()) -> None:
        self.script = script.upper() if script else None
        self._asked = {_beginning(question) for question in asked}
        letters = map(chr, range(0x3100, 0x10000) if script == "cjk" else range(0x10000))
        if self.script and not any(self._is_of_script(letter) for letter in letters):
            raise UsageError(
                f"no letter is of the script {script}", "expected latin, greek, cyrillic, cjk, ..."
            )

    def _is_of_script(self, letter: str) -> bool:
        return unicodedata.name(letter, "").partition(" ")[0] == self.script

    def reason_against(self, question: str | None) -> str | None:
        """Return why a question is not to be asked: it is "unended", "short", "repeated" or
        "foreign"; None where it is to be asked, and remember it then.

        Args:
            question: the question; None where it did not end.
        """
        if question is None:
            return "unended"
        words, letters = question.lower().split(), [c for c in question if c.isalpha()]
        spaced = max(map(ord, letters), default=0) < _UNSPACED
        if len(letters) < _FEWEST_LETTERS or (spaced and len(words) < _FEWEST_WORDS):
            return "short"
        repeats_itself = len(words) >= 12 and len(set(words)) < _REPEATED * len(words)
        if repeats_itself or _beginning(question) in self._asked:
            return "repeated"
        foreign = sum(not self._is_of_script(c) for c in letters) if self.script else 0
        if foreign * 20 > len(letters):
            return "foreign"
        self._asked.add(_beginning(question))
        return None


def _beginning(question: str) -> str:
    """Return the first letters and digits of a question, by which it is known again."""
    return "".join(c for c in question.casefold() if c.isalnum())[:_BEGINNING]
