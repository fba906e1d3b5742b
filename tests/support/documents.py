"""What can be typed, out of the documents."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


def blocks(path: Path, *languages: str) -> list[str]:
    """Return a document's blocks of code in certain languages, "" for none that is named."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", path.read_text(), re.M | re.S)
    return [text for language, text in found if language in languages]


def code(path: Path) -> Iterator[str]:
    """Yield the lines of a document's blocks of code, continued ones joined."""
    for block in blocks(path, "", "sh", "bash"):
        yield from block.replace("\\\n", "").splitlines()


def commands(path: Path) -> Iterator[list[str]]:
    """Yield the words behind `nfox` of every command in a document."""
    for line in code(path):
        if re.search(r"[$][{(a-z]|^\s*(#|>)", line):  # lines of a script, or of a capture
            continue
        try:
            words = shlex.split(line.replace("$KEY", "key"), comments=True)
        except ValueError:  # prose in a capture
            continue
        for segment in split_at(words, ("|", ";", "&&", ">", "do")):
            if segment[:1] == ["nfox"]:
                yield segment[1:]
            elif "nfox.cli" in segment:
                yield segment[segment.index("nfox.cli") + 1 :]


def split_at(words: list[str], ends: tuple[str, ...]) -> Iterator[list[str]]:
    """Yield the words between those that end a command."""
    start = 0
    for at in [*(at for at, word in enumerate(words) if word in ends), len(words)]:
        yield words[start:at]
        start = at + 1


def typed(path: Path) -> Iterator[str]:
    """Yield what a document says can be typed at a shell, in its blocks of code and between its
    words, from the first to the last; without comments.
    """
    for block, words in re.findall(r"^```\n(.*?)^```|`([^`\n]+)`", path.read_text(), re.M | re.S):
        for line in (words or block).replace("\\\n", "").splitlines():
            if re.match(r"(nfox|pip|git|python)( |$)", line):
                yield re.sub(r"\s+#.*", "", line)
