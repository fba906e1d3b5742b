"""Markdown inside a block: emphasis, code and links, by markdown-it.

Its tokens do not say where they stand, but they stand in the order of the source, and what each
leaves out is known, its marks: so of each character that is shown it is known where it comes from.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.style import Style

from .runs import DIM, PLAIN, Marked, Run

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_RULES = (
    *("newline", "escape", "backticks", "strikethrough", "emphasis", "link", "image", "autolink"),
    *("entity", "balance_pairs", "fragments_join"),
)
_STYLES = {"strong": Style(bold=True), "em": Style(italic=True), "s": Style(strike=True)}
# What follows a bracket that another has closed, and no address behind that. Where code or an
# address between them has not ended, nothing is certain.
_WORDS = r"(?:[^]\[`\\<]|\\.|(?<!`)`[^`]+`(?!`)|<(?=[^<>]*\s))*"
_CLOSED = rf"(?:\[{_WORDS}\])?{_WORDS}\][^(]"
# What may yet become the beginning of something, where it is shown as it stands.
_MAY_OPEN = re.compile(
    r"`|\*(?=\**(?![\s*]))|(?<![^\W_])_(?=_*(?![\s_]))|~(?=~+(?![\s~]))"
    rf"|!(?=\[)(?!\[{_CLOSED})|\[(?!{_CLOSED})|<(?=[^\s<>]*$)|&(?=#?\w*$)"
)
_OPEN_END = re.compile(r"[\W_]*$")  # marks at the end may grow, or be something by what follows


class InlineText:
    """A stretch of inline Markdown, parsed.

    Args:
        marked: the source.
        style: the style of all of it.
        code: the style of code in it.

    Attributes:
        runs: what is shown.
    """

    def __init__(self, marked: Marked, style: Style = PLAIN, code: Style = PLAIN) -> None:
        self.runs: list[Run] = []
        self._source = marked
        self._code = code
        self._at = 0  # in the source
        self._literal: list[range] = []  # what is shown as it stands
        self._spans: list[tuple[int, int]] = []  # from the first mark of something to the last
        self._open: list[tuple[int, Style]] = []  # where something begins, and the style before it
        self._style = style
        markdown = parser()
        for token in markdown.inline.parse(marked.text, markdown, {}, []):
            getattr(self, f"_{token.type}", self._mark)(token)

    def settled(self) -> int:
        """Return the length of the source that is shown as it is now, whatever follows it."""
        text = self._source.text
        end = next(
            (m.start() for m in _MAY_OPEN.finditer(text) if self._is_literal(m.start())), len(text)
        )
        if at_end := _OPEN_END.search(text):
            end = min(end, at_end.start())
        for start, stop in sorted(self._spans, reverse=True):
            if start < end < stop:
                end = start
        while text[end : end + 1].strip() and not cell_len(text[end]):  # it joins what is before it
            end -= 1
        return end

    def _is_literal(self, place: int) -> bool:
        return any(place in stretch for stretch in self._literal)

    def _show(
        self, text: str, start: int, style: Style | None = None, *, is_code: bool = False
    ) -> None:
        style = self._style if style is None else style
        sources = self._source.sources[start : start + len(text)]
        sources = [*sources, *sources[-1:] * (len(text) - len(sources))]
        self.runs.append(Run(text, style, sources, start, is_code))

    def _text(self, token: Token) -> None:
        self._show(token.content, self._at)
        self._literal.append(range(self._at, self._at + len(token.content)))
        self._at += len(token.content)

    def _text_special(self, token: Token) -> None:
        shift = 1 if token.info == "escape" and len(token.content) == 1 else 0
        self._show(token.content, self._at + shift)
        self._at += len(token.markup)

    def _code_inline(self, token: Token) -> None:
        start, marks, text = self._at, len(token.markup), self._source.text
        inner = text[start + marks :].replace("\n", " ")
        padding = 0 if inner.startswith(token.content + token.markup) else 1
        self._show(token.content, start + marks + padding, self._style + self._code, is_code=True)
        self._at += 2 * (marks + padding) + len(token.content)
        self._spans.append((start, self._at))

    def _softbreak(self, token: Token) -> None:
        newline = self._source.text.index("\n", self._at)
        self._show("\n", newline, PLAIN)
        rest = self._source.text[newline + 1 :]
        self._at = newline + 1 + len(rest) - len(rest.lstrip(" "))

    _hardbreak = _softbreak

    def _mark(self, token: Token) -> None:
        """Take the marks at the beginning or the end of something that has a style."""
        marks = len(token.markup) if token.tag in _STYLES else 1
        if token.nesting > 0:
            self._open.append((self._at, self._style))
            self._style += _STYLES.get(token.tag, PLAIN)
            self._at += marks
            return
        start, self._style = self._open.pop()
        if token.type == "link_close":
            self._target(start, token.meta["end"], token.markup == "autolink")
        else:
            self._at += marks
        self._spans.append((start, self._at))

    def _target(self, start: int, end: int, is_shown: bool) -> None:
        """Show where a link leads, behind its text, unless that says so."""
        target = self._source.text[self._at + 1 : end]
        if not is_shown and target.strip("()<>") != self._source.text[start + 1 : self._at]:
            self.runs.append(Run(" "))
            self._show(target, self._at + 1, self._style + DIM)
        self._at = end

    def _image(self, token: Token) -> None:
        start = self._at
        self._show(token.content, start + 2)
        # Code and addresses that begin in the text of a picture may end behind it, and undo it.
        inner = range(start + 2, start + 2 + len(token.content))
        self._literal += [range(n, n + 1) for n in inner if self._source.text[n] in "`<"]
        self._at += 2 + len(token.content)
        self._target(start, token.meta["end"], is_shown=False)
        self._spans.append((start, self._at))


@cache
def parser() -> MarkdownIt:
    """Return markdown-it for inline Markdown, whose links say where they end."""
    from markdown_it import MarkdownIt
    from markdown_it.rules_inline import autolink, image, link

    markdown = MarkdownIt("zero").enable(_RULES)
    for name, rule in (("link", link), ("image", image), ("autolink", autolink)):
        markdown.inline.ruler.at(name, _noting_end(rule))
    return markdown


def _noting_end(rule: Callable[[Any, bool], bool]) -> Callable[[Any, bool], bool]:
    """Return a rule that writes into its last token where in the source what it found ends."""

    def noting(state: Any, silent: bool) -> bool:
        found = rule(state, silent)
        if found and not silent:
            state.tokens[-1].meta["end"] = state.pos
        return found

    return noting
