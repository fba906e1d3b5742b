"""The forms in which weights are handed to other engines, and what an export format is.

A method names the form of its weights (`Method.exchange_type`), an export format the forms that it
writes. Neither knows the other's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class ParallelHeads:
    """Heads that guess every place from one hidden state, each without knowing the others' guesses.

    Args:
        name: of their method, as it was published.
        base: name of the model that they belong to.
        blocks: [K][L] weight [D, D] and bias [D] of the blocks z + SiLU(A z + b).
        matrices: [V, D] each: K of them, or one that all heads end in.
    """

    name: str
    base: str
    blocks: list[list[tuple[Tensor, Tensor]]]
    matrices: list[Tensor]


@dataclass(frozen=True)
class DraftModel:
    """A small language model that guesses for a larger one.

    Args:
        base: name of the larger one.
        files: of its folder, by name: config, weights, tokenizer.
        config: what its `config.json` says.
        base_config: what that of the larger one says; {} if it cannot be read here.
        gamma: tokens that it drafts in every step.
    """

    base: str
    files: Mapping[str, Path]
    config: Mapping[str, Any]
    base_config: Mapping[str, Any]
    gamma: int


@dataclass(frozen=True)
class Written:
    """What was written.

    Args:
        files: their names.
        lines: for the person: how the engine is started with them, and what must be known.
    """

    files: list[str]
    lines: list[str]


@dataclass(frozen=True)
class ExportFormat:
    """An engine that can use weights of some kinds.

    Args:
        layouts: by kind, what writes it into a folder.
        instead: what to do with weights of other kinds.
    """

    layouts: Mapping[type, Callable[[Any, Path], Written]]
    instead: str


def tokens(config: Mapping[str, Any]) -> int | None:
    """Return the size of the vocabulary that a `config.json` names, at the top or for its text."""
    size = config.get("text_config", config).get("vocab_size")
    return None if size is None else int(size)
