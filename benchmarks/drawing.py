"""What drawing a reply costs, as a share of the time in which it is decoded.

    python benchmarks/drawing.py

Tokens of four characters come at 500 a second, in steps of one to four, on a clock that goes on by
the processor time of drawing and by nothing else: what else the machine does has no part in it.
"""

from __future__ import annotations

import io
import os
import random
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from rich.text import Text

from nfox.cli.display import reply_view
from nfox.cli.display.theme import make_screen
from nfox.cli.options.chat import DisplayArguments
from nfox.text.pieces import Piece

RATE, TOKEN, MOST = 500, 4, 4  # tokens per second, characters of one, tokens of a step
PYTHON = Path(reply_view.__file__).read_text() + Path(__file__).read_text()
TEXTS = {
    "prose": "A **small model** drafts a few tokens, and `one forward` of the large one reads all. "
    "It keeps those that it would have said itself, so the text is its own.\n\n" * 40,
    "list": "".join(f"{n}. **Item {n}** is about `code`, and goes on\n" for n in range(200)),
    "table": "| a | b | c |\n|---|--:|---|\n" + "| some words | 23 | `x` |\n" * 150,
    "python": f"```python\n{PYTHON}\n```\n",
}


class Window(io.StringIO):
    """A terminal that shows nothing."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Clock:
    """The time at which a step comes, and the time since then that was spent on drawing."""

    def __init__(self) -> None:
        self.at = 0.0
        self.begin = time.thread_time()

    def now(self) -> float:
        return self.at + time.thread_time() - self.begin


def measure(text: str, render: str) -> tuple[float, float]:
    """Return the seconds that drawing a text took, and those in which it was decoded."""
    clock = Clock()
    with patch.object(reply_view, "clock", clock):
        return _measure(text, render, clock)


def _measure(text: str, render: str, clock: Clock) -> tuple[float, float]:
    chance, spent, tokens = random.Random(0), 0.0, 0
    display = replace(DisplayArguments(), theme="dark", render=render)  # type: ignore[arg-type]
    view = reply_view.ReplyView(make_screen(display, Window()))
    while TOKEN * tokens < len(text):
        step = chance.randint(1, MOST)
        starts = range(TOKEN * tokens, TOKEN * (tokens + step), TOKEN)
        sources = chance.choices(["accepted", "corrected", "bonus"], k=step)
        pieces = [
            Piece(text[start : start + TOKEN], source, tokens)  # type: ignore[arg-type]
            for start, source in zip(starts, sources, strict=True)
        ]
        tokens += step
        clock.at, clock.begin = max(tokens / RATE, clock.at), time.thread_time()
        view.add(pieces, lambda: Text("500.0 tok/s and what else a status row says"))
        spent += time.thread_time() - clock.begin
    clock.begin = time.thread_time()
    view.close()
    return spent + time.thread_time() - clock.begin, tokens / RATE


def main() -> None:
    os.environ |= {
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "COLUMNS": "80",
        "LINES": "24",
    }
    print("share of the time that drawing takes, the first time and once what it needs is imported")
    for name, text in TEXTS.items():
        for render in ("text", "markdown"):
            first, again = (measure(text, render) for _ in range(2))
            shares = "  ".join(f"{spent / decoded:5.2%}" for spent, decoded in (first, again))
            print(f"{name:8} {render:9} {shares}   of {first[1]:.1f} s")


if __name__ == "__main__":
    main()
