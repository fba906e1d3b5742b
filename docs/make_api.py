"""Write docs/api.md from the docstrings of the public names: `python docs/make_api.py`."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import nfox

OUT = Path(__file__).parent / "api.md"
OPENING = """\
# nfox as a library

Made from the docstrings by `python docs/make_api.py`; a test compares the two.

```python
import nfox

with nfox.load() as engine:  # the embedded model; or a folder, or a hub id
    print(engine.answer("Why is the sky blue?"))  # a Reply: text, ids, timings, stats
    for piece in engine.stream("And at night?", max_new_tokens=40, temperature=0.7, seed=1):
        print(piece.text, end="", flush=True)  # piece.source says where the text came from
```
"""
ORDER = [
    *("load", "Engine", "ReplyStream", "Reply", "Piece", "Conversation"),
    *(
        "Message",
        "Settings",
        "Sampling",
        "Request",
        "Exchange",
        "Update",
        "ModelOptions",
        "LoadProgress",
        "EngineSummary",
        "NfoxError",
    ),
]


def text() -> str:
    """Return the whole document."""
    missing = set(nfox.__all__) - set(ORDER)
    assert not missing, f"name in ORDER where these belong: {missing}"
    return "\n".join([OPENING, *(part for name in ORDER for part in described(name))])


def described(name: str) -> Iterator[str]:
    """Yield the parts of the document about one public name."""
    public = getattr(nfox, name)
    if inspect.isclass(public):
        yield f"## `{name}`\n"
        if dataclasses.is_dataclass(public) or issubclass(public, Exception):
            yield signature(name, public)
        yield prose(public)
        for member, value in vars(public).items():
            if not member.startswith("_") and documented(value):
                yield from member_of(name, member, value)
    else:
        yield f"## `nfox.{name}`\n"
        yield signature(f"nfox.{name}", public)
        yield prose(public)


def documented(value: Any) -> bool:
    """Whether a class's own attribute is a method or property with a docstring."""
    function = getattr(value, "__func__", getattr(value, "fget", value))
    return callable(function) and bool(inspect.getdoc(function))


def member_of(owner: str, name: str, value: Any) -> Iterator[str]:
    """Yield the parts of the document about a method or a property."""
    yield f"### `{owner}.{name}`\n"
    if isinstance(value, property):
        yield prose(value.fget)
        return
    yield signature(f"{owner}.{name}", getattr(value, "__func__", value))
    yield prose(getattr(value, "__func__", value))


def signature(name: str, value: Any) -> str:
    """Return a call's signature as code, one parameter on each line where it is long."""
    spelled = inspect.signature(value)
    parts, bare = [], False
    for parameter in spelled.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not bare:
            parts.append("*")
            bare = True
        parts.append(spell(parameter))
    returned = "" if inspect.isclass(value) else f" -> {spelled.return_annotation}"
    line = f"{name}({', '.join(parts)}){returned}"
    if len(line) > 96:
        line = "\n    ".join([f"{name}(", *(f"{part}," for part in parts)]) + f"\n){returned}"
    return f"```python\n{line}\n```\n"


def spell(parameter: inspect.Parameter) -> str:
    """Return a parameter as it stands in a signature; a default that is made or called is "..."."""
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
    spelled = f"{stars.get(parameter.kind, '')}{parameter.name}: {parameter.annotation}"
    if parameter.default is parameter.empty:
        return spelled
    plain = isinstance(parameter.default, str | int | float | tuple | None)
    return f"{spelled} = {parameter.default!r}" if plain else f"{spelled} = ..."


def prose(value: Any) -> str:
    """Return a docstring as Markdown: its sections become lists."""
    lines: list[str] = []
    section = False
    for line in (inspect.getdoc(value) or "").splitlines():
        if re.fullmatch(r"(Args|Attributes|Raises|Returns|Yields):", line):
            lines.append(f"**{line}**\n")
            section = True
        elif section and (found := re.fullmatch(r" {4}(\w+): (.*)", line)):
            lines.append(f"- `{found[1]}`: {found[2]}")
        elif section and line.startswith("     "):
            lines.append("  " + dedent(line))
        else:
            lines.append(line.strip() if section else line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    OUT.write_text(text(), encoding="utf-8")
