"""What heads that run in the native library need of a vocabulary."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from nfox.decoding.target import Vocabulary
from nfox.models.native.product import NativeProduct


@runtime_checkable
class NativeVocabulary(Protocol):
    """A vocabulary that the native library can compute with."""

    @property
    def native_parts(self) -> tuple[Tensor, NativeProduct] | None:
        """The embeddings [V, D] and the product for the logits, where the library computes both as
        `embed` and `unembed` of the vocabulary do; else None.
        """


def native_parts(vocabulary: Vocabulary) -> tuple[Tensor, NativeProduct] | None:
    """Return the `native_parts` of a vocabulary; None of one that has none."""
    return vocabulary.native_parts if isinstance(vocabulary, NativeVocabulary) else None
