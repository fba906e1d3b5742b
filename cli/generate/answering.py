"""Prompts answered in order, each with one line of JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from nfox.controls import json_text

if TYPE_CHECKING:
    from nfox.batch import BatchPrompt
    from nfox.engine import Engine


def answer_all(
    engine: Engine,
    prompts: Iterable[BatchPrompt],
    write: Callable[[str], object],
    more: Callable[[dict[str, Any]], dict[str, Any]] = lambda line: {},
    on_done: Callable[[], object] = lambda: None,
) -> list[int]:
    """Answer all prompts in order; return the exit codes of those not answered to the end.

    Args:
        engine: the engine that answers.
        prompts: the prompts; the next one is taken when the last one was answered.
        write: is called with the line of JSON for each prompt.
        more: returns fields to add to a line.
        on_done: is called after each prompt.
    """
    from nfox.batch import answer, exit_codes

    refused = list[int]()
    for prompt in prompts:
        line = answer(engine, prompt)
        refused += exit_codes(line)
        write(json_text(line | more(line)) + "\n")
        on_done()
    return refused
