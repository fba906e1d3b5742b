"""The tokenizer of a model, and whether it is one and the model's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from nfox.errors import ModelError
from nfox.files.reading import describe, refusing
from nfox.models.options import ModelOptions
from nfox.models.pretrained_arguments import hub_arguments

_FILES = ("*token*", "*vocab*", "*.model", "*.spm", "*.tiktoken", "tekken.json", "merges.txt")
_HINT = "copy the tokenizer's files (tokenizer.json, or tokenizer.model) into the model's folder"
_FEW = 0.01
"""How much of a vocabulary may lie beyond the embedding: tokens that were added, never used."""


def load_tokenizer(location: str, options: ModelOptions) -> Any:
    """Return the tokenizer of a model; None for a folder that holds none.

    Args:
        location: the folder or hub id of the model.
        options: how its files are fetched.

    Raises:
        ModelError: if its files cannot be read, or the tokens are not among them.
    """
    folder = Path(location)
    if folder.is_dir() and not any(any(folder.glob(pattern)) for pattern in _FILES):
        return None
    try:
        tokenizer = AutoTokenizer.from_pretrained(location, **hub_arguments(options))
        tokenizer("Hello")  # some values of its config are looked at here
    except Exception as error:  # nobody knows all that a wrong value causes behind its reader
        raise ModelError(
            f"cannot load the tokenizer of {location}: {describe(error)}", _HINT
        ) from error
    if not _spells(tokenizer):
        # transformers makes a tokenizer from a config alone, which takes no text.
        raise ModelError(
            f"the tokenizer of {location} knows no text: its tokens are missing", _HINT
        )
    # What its config says is not all looked at before the first text.
    with refusing(f"the tokenizer of {location}", error_type=ModelError, hint=_HINT):
        tokenizer("a")
    return tokenizer


def check_tokenizer(name: str, tokenizer: Any, vocabulary_size: int) -> None:
    """Refuse a tokenizer that is another model's.

    A few tokens beyond the embedding are not used, or refused where a prompt has them.

    Args:
        name: the model, as the person wrote it.
        tokenizer: its tokenizer; None if it has none.
        vocabulary_size: the number of tokens that the model has an embedding for.

    Raises:
        ModelError: if much of the tokenizer's vocabulary lies beyond the embedding, without what
            was added to it.
    """
    if tokenizer is None:
        return
    added = {str(token) for token in _added_tokens(tokenizer)}
    ids = [token for text, token in tokenizer.get_vocab().items() if text not in added]
    beyond = sum(token >= vocabulary_size for token in ids)
    if beyond > _FEW * len(ids):
        raise ModelError(
            f"{name}: the tokenizer has {len(ids)} tokens, the model knows {vocabulary_size}: it "
            "is another model's tokenizer",
            _HINT,
        )


def _spells(tokenizer: Any) -> bool:
    """Whether there are tokens in a tokenizer beside the special ones."""
    special = {str(token) for token in _added_tokens(tokenizer) if token.special}
    return bool(tokenizer.get_vocab().keys() - special - {*tokenizer.all_special_tokens, "▁"})


def _added_tokens(tokenizer: Any) -> list[Any]:
    """Return the tokens that were added to a vocabulary; that of mistral-common takes none."""
    added = tokenizer.added_tokens_decoder
    return list(added.values()) if isinstance(added, Mapping) else []
