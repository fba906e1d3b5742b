"""Prompts in order, each answered with one JSON line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nfox.batch import Prompt
    from nfox.engine import Engine


def answer_all(
    engine: Engine,
    prompts: Iterable[Prompt],
    keep: Callable[[str], object],
    more: Callable[[dict[str, Any]], dict[str, Any]] = lambda line: {},
    on_done: Callable[[], object] = lambda: None,
) -> int:
    """Answer all prompts; return how many were refused.

    Args:
        engine: that answers.
        prompts: in order.
        keep: takes a JSON line for each.
        more: what to add to a line.
        on_done: called after each.
    """
    from nfox.batch import answer

    refused = 0
    for prompt in prompts:
        line = answer(engine, prompt)
        refused += "error" in line
        keep(json.dumps(line | more(line), ensure_ascii=False) + "\n")
        on_done()
    return refused
