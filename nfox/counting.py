"""Numbers of things in words: 1 token, 2 tokens, 1,024 tokens."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless there is one.

    Args:
        count: how many there are.
        noun: what is counted, in the singular; the plural ends in s, or in es after an s.
    """
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun}{'es' if noun.endswith('s') else 's'}"
