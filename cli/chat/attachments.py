"""Files in messages: `@path` in a message names a file, whose text follows the message.

What is sent is a text like any other: it is saved, shown and taken back with the conversation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nfox.counting import counted
from nfox.errors import NfoxError, UsageError
from nfox.files.reading import read_text, refusing

from ..paths import complete_path, typed_path

if TYPE_CHECKING:
    from nfox.engine import Engine

    from .app import ChatApp

_MENTION = re.compile(r'(?<!\S)@(?:(@)|"([^"\n]+)"|([^\s"@]\S*))')
_BEGUN = re.compile(r'(?<!\S)@("[^"\n]*|[^\s"@]*)$')
_TOLD = 4  # names that are no files
_PUNCTUATION = ".,;:!?)]}'\""
_MOST_BYTES = 16  # of a token, beyond which a file need not be read to be too large
_TICKS = re.compile("`{3,}")


def send(app: ChatApp, text: str, typed: str = "") -> None:
    """Send a message with the files that it names; where one cannot be taken, put the message into
    the next input.

    Args:
        app: the chat.
        text: the message, in which `@@` stands for `@`.
        typed: what was typed for it, if that is another text.

    Raises:
        NfoxError: if a file cannot be taken, or the message not be answered.
    """
    files: dict[str, Path] = {}
    unknown: list[str] = []

    def name_of(match: re.Match[str]) -> str:
        """Return what stands in the message for a mention."""
        if match[1]:
            return "@"
        path, rest = _existing(match[2] or match[3], quoted=bool(match[2]))
        if path is None:
            unknown.append(match[0].rstrip(_PUNCTUATION))
            return match[0]
        name = str(match[2] or match[3]).removesuffix(rest)
        files[name] = path
        return name + rest

    message = _MENTION.sub(name_of, text)
    try:
        message = with_files(app, message, files)
    except NfoxError:
        app.next_input = typed or text
        raise
    if unknown:
        names = list(dict.fromkeys(unknown))
        more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
        app.say(f"no file: {' '.join(names[:_TOLD])}{more}, left as typed (@@ is a plain @)")
    app.send(message, typed or text)


def _existing(typed: str, *, quoted: bool) -> tuple[Path | None, str]:
    """Return the file of a mention, None if there is none; and the punctuation behind it."""
    bare = typed if quoted else typed.rstrip(_PUNCTUATION)
    for name in dict.fromkeys((typed, bare)):
        path = Path(os.path.expanduser(name))  # noqa: PTH111, which raises without a home
        if name and os.path.exists(path) and not path.is_dir():  # noqa: PTH110, as above
            return path, typed.removeprefix(name)
    return None, ""


def with_files(app: ChatApp, message: str, files: dict[str, Path]) -> str:
    """Return a message with the texts of files behind it; say how many tokens each has.

    Args:
        app: the chat.
        message: the message.
        files: their paths by the names that the message has for them.

    Raises:
        NfoxError: if a file is no text, or larger than the context.
    """
    parts, sizes = [message], []
    for name, path in files.items():
        text, tokens = _text_of(name, path, app.engine)
        fence = "`" * max(3, *(len(ticks) + 1 for ticks in _TICKS.findall(text)), 3)
        parts.append(f"{name}:\n{fence}\n{text}\n{fence}")
        sizes.append(f"{name}: {counted(tokens, 'token')}")
    for size in sizes:
        app.say(size)
    return "\n\n".join(parts)


def _text_of(name: str, path: Path, engine: Engine) -> tuple[str, int]:
    """Return the text of a file, and how many tokens it has."""
    limit = engine.max_context
    hint = f"the context holds {limit:,} tokens"
    with refusing(name, "a text file"):
        size = path.stat().st_size
        if size > _MOST_BYTES * limit:
            raise UsageError(f"{name} is too large: {counted(size, 'byte')}", hint)
        text = read_text(path, "a text file").rstrip("\n")
    tokenizer = engine.model.tokenizer
    tokens = len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)
    if tokens >= limit:
        raise UsageError(f"{name} is too large: {counted(tokens, 'token')}", hint)
    return text, tokens


def split_path(argument: str) -> tuple[str, str]:
    """Return the path with which a text begins, and what follows it: a path in quotes, else the
    longest that there is, else the first word.
    """
    if quoted := re.match(r'"([^"]+)"\s*(.*)', argument, re.DOTALL):
        return quoted[1], quoted[2]
    words = re.split(r"(\s+)", argument)
    for end in range(len(words), 0, -2):
        path = "".join(words[:end])
        with_home = typed_path(path, "/file notes.txt")
        if os.path.exists(with_home):  # noqa: PTH110, which raises where a question is no name
            return path, "".join(words[end + 1 :])
    return words[0], "".join(words[2:])


def mention(path: str) -> str:
    """Return a path as a message names it."""
    return f'@"{path}"' if re.search(r"\s", path) else f"@{path}"


def complete_mention(typed: str) -> Iterable[str]:
    """Return the words to which a mention at the end of a message can be completed."""
    begun = _BEGUN.search(typed)
    return _completed(begun[1]) if begun else ()


def _completed(begun: str) -> Iterator[str]:
    last_word = len(begun) - len(begun.rpartition(" ")[2])
    for path in complete_path(begun.removeprefix('"')):
        word = mention(path)
        if begun.startswith('"') and not word.startswith('@"'):
            word = f'@"{path}"'
        if path.endswith("/") and word.endswith('"'):
            word = word[:-1]  # what lies in the folder comes before the closing quote
        yield word if not last_word else word[1 + last_word :]
