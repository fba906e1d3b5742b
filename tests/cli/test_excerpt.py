"""The beginning of a text in one line: never wider than it may be, and whole where it fits."""

from __future__ import annotations

import random

from rich.cells import cell_len

from nfox.cli.display.excerpt import excerpt

PARTS = (
    "a",
    "word",
    " ",
    "\n",
    "\t",
    "你",
    "好吗",
    "é́",
    "\x1b[31m",
    "\x07",
    "\u200b",
    "🦊",
    "\ufffd",
)


def test_a_text_is_cut_to_its_cells() -> None:
    generator = random.Random(7)
    for _ in range(500):
        text = "".join(generator.choices(PARTS, k=generator.randrange(40)))
        cells, ellipsis = generator.randrange(4, 40), generator.choice(("…", "..."))
        shown = excerpt(text, cells, ellipsis)
        assert cell_len(shown) <= cells
        assert not set(shown) & set("\n\t\x1b\x07") and shown == shown.strip()
        whole = excerpt(text, 1000, ellipsis)
        assert shown == whole or (shown.endswith(ellipsis) and cell_len(whole) > cells)
        assert whole.startswith(shown.removesuffix(ellipsis).rstrip("…. "))
    assert excerpt("x" * 10**7, 5) == "xxxx…"
    assert excerpt(" " * 10**7 + "x", 5) == "x"
    assert excerpt("one\n\nthe text of a file", 30) == "one…"
