"""What an engine says of itself: to a person who starts a chat, and to a program that reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineSummary:
    """Which model answers, by which method and template, and where.

    Args:
        model: the folder or hub id of the target.
        adapter: the LoRA that the target was loaded with; None without.
        method: the name of the method that drafts.
        why: why it is this method, in a few words.
        drafter: what the method drafts with, in a few words; "" if there is nothing to say.
        template: the name of the conversation template.
        dtype: the dtype that the target computes in, such as "float32", and the formats of weights
            that have another one.
        device: the device that the target reads tokens on.
        max_context: the most positions that a conversation may take.
        lossless: whether replies follow the target's own distribution.
        reproducible: whether every method gives the same text to the last bit, of one seed.
    """

    model: str
    adapter: str | None
    method: str
    why: str
    drafter: str
    template: str
    dtype: str
    device: str
    max_context: int
    lossless: bool
    reproducible: bool
