"""The colours of code, by pygments, as the lines of a block come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.style import Style

from .runs import PLAIN, Marked, Run

if TYPE_CHECKING:
    from pygments.lexer import Lexer

_CONTEXT = 2048  # characters of code before a line that decide what it is


class CodeColors:
    """Colours one block of code.

    Args:
        language: as it is named behind the fence.
        styles: styles by the names of pygments' tokens, such as "Keyword" and "Name.Function".
    """

    def __init__(self, language: str, styles: Mapping[str, Style]) -> None:
        self._lexer = _lexer(language) if any(styles.values()) else None
        self._styles = styles
        self._before = ""  # lines that came before

    def runs(self, code: Marked) -> list[Run]:
        """Return whole lines of code, which follow those before, in colours."""
        if self._lexer is None:
            return [Run(code.text, PLAIN, code.sources, 0, True)]
        runs, at = [], 0
        for style, tokens in groupby(self._tokens(code.text), lambda token: self._style(token[0])):
            text = "".join(text for _, text in tokens)[: len(code.text) - at]
            runs.append(Run(text, style, code.sources[at : at + len(text)], at, True))
            at += len(text)
        return runs

    def keep(self, code: str) -> None:
        """Take lines that will not change: those that follow are coloured by them too."""
        self._before += code
        if len(self._before) > _CONTEXT:  # from an empty line on, or there is no end to the work
            at = self._before.find("\n\n", len(self._before) - _CONTEXT // 2)
            self._before = self._before[at + 2 :] if at >= 0 else ""

    def _tokens(self, code: str) -> Iterator[tuple[Any, str]]:
        """Yield the tokens of lines of code, by pygments, and their texts."""
        assert self._lexer is not None
        start = len(self._before)
        for at, kind, text in self._lexer.get_tokens_unprocessed(self._before + code):
            if at + len(text) > start:
                yield kind, text[max(start - at, 0) :]

    def _style(self, kind: Any) -> Style:
        while kind.parent is not None:
            if style := self._styles.get(".".join(kind)):
                return style
            kind = kind.parent
        return PLAIN


@cache
def _lexer(language: str) -> Lexer | None:
    """Return pygments' lexer for a language; None if it has none."""
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    name = language.split()[0].strip("{}.").lower() if language.split() else ""
    try:
        return get_lexer_by_name(name) if name else None
    except ClassNotFound:
        return None
