"""A conversation as a document: Markdown to be read and pasted, HTML with what was drafted marked,
JSON that /load reads.

The one idea: whoever has messages, the chat or the log, has them exported by the same function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from markdown_it import MarkdownIt

from nfox.controls import json_text, sanitize
from nfox.files.model_names import short_name
from nfox.text.conversation_file import to_json
from nfox.text.messages import Message
from nfox.text.pieces import split_runs

from ..display.palettes import PALETTES
from ..log.entry import title_of

Runs = Sequence[tuple[int, str]]
"""The sources of a text run by run, as `source_runs` returns them: lengths and letters."""
_SPEAKERS = {"system": "System", "user": "You"}
_MEANINGS = {"a": "guessed ahead and accepted", "c": "a wrong guess, corrected"}


@dataclass(frozen=True)
class ExportedConversation:
    """What is exported of a conversation.

    Args:
        messages: all of them, the system message first if there is one.
        model: the name of the model that answered.
        template: the name of the conversation template.
        sources: for each message the sources of its text; () where they are not known.
        title: of the document; "" for the beginning of the first question.
    """

    messages: Sequence[Message]
    model: str
    template: str
    sources: Sequence[Runs] = ()
    title: str = ""

    def heading(self) -> str:
        """Return the title, in one line."""
        first = next((m.content for m in self.messages if m.role == "user"), "A conversation")
        return " ".join(sanitize(self.title or title_of(first)).split())

    def turns(self) -> Iterator[tuple[str, Message, Runs]]:
        """Yield every message with who says it and the sources of its text."""
        for index, message in enumerate(self.messages):
            runs = self.sources[index] if index < len(self.sources) else ()
            known = sum(length for length, _ in runs) == len(message.content)
            speaker = _SPEAKERS.get(message.role, short_name(self.model))
            yield speaker, message, runs if known else ()


def export(conversation: ExportedConversation, format: str) -> str:
    """Return a conversation as a document.

    Args:
        conversation: the conversation.
        format: one of `FORMATS`.
    """
    return FORMATS[format](conversation)


def _markdown(conversation: ExportedConversation) -> str:
    parts = [f"# {conversation.heading()}"]
    for speaker, message, _ in conversation.turns():
        parts += [f"## {sanitize(speaker)}", _closed(sanitize(message.content).strip())]
    return "\n\n".join(filter(None, parts)) + "\n"


def _closed(text: str) -> str:
    """Return a Markdown text with its last code block closed, where a reply was cut inside it."""
    end = "after the text"
    last = MarkdownIt().parse(f"{text}\n\n{end}")[-1]
    inside = last.type == "fence" and last.content.rstrip("\n").endswith(end)
    return f"{text}\n{last.markup}" if inside else text


def _json(conversation: ExportedConversation) -> str:
    data = to_json(conversation.model, conversation.template, conversation.messages)
    for row, (_, _, runs) in zip(data["messages"], conversation.turns(), strict=True):
        row.update({"made": {"sources": runs}} if runs else {})
    return json_text(data | {"title": conversation.heading()}, indent=1) + "\n"


_LIGHT, _DARK = PALETTES["light"], PALETTES["dark"]
_STYLE = f"""
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 45rem; margin: 2rem auto; padding: 1rem; }}
h1 {{ font-size: 1.4rem; }}
h2 {{ font-size: 1rem; margin: 1.5rem 0 0; opacity: 0.7; }}
.text {{ white-space: pre-wrap; overflow-wrap: anywhere; }}
.a {{ color: {_LIGHT.accepted}; text-decoration: underline; text-underline-offset: 0.2em; }}
.c {{ color: {_LIGHT.corrected}; font-style: italic; }}
footer {{ margin-top: 2rem; font-size: 0.9rem; }}
@media (prefers-color-scheme: dark) {{
  .a {{ color: {_DARK.accepted}; }}
  .c {{ color: {_DARK.corrected}; }}
}}
"""


def _html(conversation: ExportedConversation) -> str:
    title = escape(conversation.heading())
    rows = [
        '<!doctype html>\n<html lang="">\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n<h1>{title}</h1>",
    ]
    marked: set[str] = set()
    for speaker, message, runs in conversation.turns():
        rows.append(f"<h2>{_text(speaker)}</h2>")
        rows.append(f'<div class="text">{"".join(_spans(message.content, runs))}</div>')
        marked |= {letter for _, letter in runs} & _MEANINGS.keys()
    meanings = [f'<span class="{letter}">{_MEANINGS[letter]}</span>' for letter in sorted(marked)]
    if meanings:
        rows.append(f"<footer>{' · '.join(meanings)} · the model&#39;s own</footer>")
    return "\n".join(rows) + "\n"


def _spans(text: str, runs: Runs) -> Iterator[str]:
    """Yield a text as HTML, each run in the class of its source."""
    for part, letter in split_runs(text, runs or ((len(text), ""),)):
        content = _text(part)
        yield f'<span class="{letter}">{content}</span>' if letter in _MEANINGS else content


def _text(text: str) -> str:
    return escape(sanitize(text))


FORMATS: dict[str, Callable[[ExportedConversation], str]] = {
    "md": _markdown,
    "json": _json,
    "html": _html,
}
"""The formats of an exported conversation, by the suffix of their files."""
