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
    """Heads that all guess from one hidden state, so that none knows the others' guesses.

    Args:
        name: the name of their method, as it was published.
        base: the name of the model that they were trained on.
        blocks: [K][L] the weight [D, D] and bias [D] of the blocks z + SiLU(A z + b) of each head.
        matrices: the vocabulary matrices [V, D], one for each of the K heads or one for all.
    """

    name: str
    base: str
    blocks: list[list[tuple[Tensor, Tensor]]]
    matrices: list[Tensor]


@dataclass(frozen=True)
class DraftModel:
    """A small language model that drafts for a larger one, its base.

    Args:
        base: the name of the larger model.
        files: the files of the draft model's folder, by name: config, weights, tokenizer.
        config: its `config.json`.
        base_config: the larger model's `config.json`; {} if it cannot be read here.
        gamma: the tokens that it drafts in every step.
    """

    base: str
    files: Mapping[str, Path]
    config: Mapping[str, Any]
    base_config: Mapping[str, Any]
    gamma: int


@dataclass(frozen=True)
class ExportedFiles:
    """The files that were written for an engine.

    Args:
        names: the names of the files.
        instructions: lines for the person: how the engine is started with the files, and what must
            be known about them.
    """

    names: list[str]
    instructions: list[str]


@dataclass(frozen=True)
class ExportFormat:
    """The layouts in which an engine reads weights.

    Args:
        writers: by the form of the weights, `ParallelHeads` or `DraftModel`: the function that
            writes them into a folder.
        hint: what the person can do with weights of other forms.
    """

    writers: Mapping[type, Callable[[Any, Path], ExportedFiles]]
    hint: str


def vocabulary_size(config: Mapping[str, Any]) -> int | None:
    """Return the size of the vocabulary that a `config.json` names, at its top or in the part about
    the text model; None if it names none.
    """
    size = config.get("text_config", config).get("vocab_size")
    return None if size is None else int(size)
