"""Which layers see only a part of what was read, as a model's config says it.

The masks of trees know one kind of such layers: those that see the last `sliding_window` positions.
Where a model has others, a probe of a few tokens does not reach beyond their window.
"""

from __future__ import annotations

from typing import Any

_KNOWN_KINDS = frozenset({"full_attention", "sliding_attention", "global"})

_KIND_NAMES = ("layer_types", "attention_layers", "block_types")
"""The kind of each layer, and its names in GPT-Neo and RecurrentGemma."""

_WINDOW_NAMES = (
    "attention_chunk_size",
    "attention_window",
    "attention_window_size",
    "local_attention_window_len",
    "window_size",
)
"""Sizes of windows that are not those of `sliding_window`, of models that name no kinds."""


def has_other_windows(config: Any) -> bool:
    """Return whether some layer of a model sees a part of the text that is not the last
    `sliding_window` positions: a chunk (Llama 4), the last rows whatever their positions (GPT-Neo),
    chosen blocks.

    Args:
        config: the config of the model's decoder.
    """
    kinds = next(filter(None, (getattr(config, name, None) for name in _KIND_NAMES)), None)
    if kinds is not None:
        return not _KNOWN_KINDS.issuperset(kinds)
    return any(getattr(config, name, None) for name in _WINDOW_NAMES)
