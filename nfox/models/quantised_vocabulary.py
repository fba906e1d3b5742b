"""The frequent part of a model's vocabulary matrix in 4 bits, which drafters guess with.

Zhao et al. 2025 (FR-Spec, arXiv 2502.14856): a draft needs the frequent tokens only, and what it
costs is mostly its vocabulary matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from nfox.decoding.target import Vocabulary
from nfox.models.native.packing import GROUP
from nfox.models.native.product import NativeProduct

_LEAST_BYTES = 2**20  # of a matrix that does not stay in a core's nearest caches


def is_worth_quantising(head: Any) -> bool:
    """Return whether a copy in 4 bits of a model's LM head is read faster than the head itself: it
    is a plain matrix in bfloat16, and no very small one.
    """
    if type(head) is not nn.Linear or head.weight.dtype != torch.bfloat16:
        return False
    return head.weight.nbytes >= _LEAST_BYTES and head.in_features % GROUP == 0


class QuantisedVocabulary(Vocabulary):
    """The vocabulary of a target, whose logits are read off a copy of its LM head in 4 bits.

    A copy of all tokens takes 0.31 of the head's memory. The target judges the guesses by its own
    logits, so that the text stays the same.

    Args:
        vocabulary: of the target.
        head: its LM head, one that `is_worth_quantising`.
        scaled: returns logits as the model leaves them, for products with the LM head.
        frequent_tokens: the token ids that the logits are of; none for all.

    Raises:
        NativeLibraryError: if there is no native library.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        head: nn.Linear,
        scaled: Callable[[Tensor], Tensor],
        frequent_tokens: Sequence[int] = (),
    ) -> None:
        self._vocabulary, self._scaled, self._tokens = vocabulary, scaled, frequent_tokens
        weight: Tensor = head.weight.detach()
        bias: Tensor | None = head.bias
        if frequent_tokens:
            weight = weight[list(frequent_tokens)]
            bias = None if bias is None else bias[list(frequent_tokens)]
        self.product = NativeProduct(weight, bias, "int4")

    @property
    @override
    def device(self) -> torch.device:
        return self._vocabulary.device

    @override
    def embed(self, ids: Tensor) -> Tensor:
        return self._vocabulary.embed(ids)

    @override
    def unembed(self, hidden: Tensor) -> Tensor:
        """Return the logits [..., n] of the frequent tokens after last hidden states [..., D],
        nearly as the model computes them.
        """
        rows = hidden.reshape(-1, hidden.shape[-1]).to(torch.bfloat16)
        return self._scaled(self.product(rows).view(*hidden.shape[:-1], -1))

    @property
    @override
    def native_parts(self) -> tuple[Tensor, NativeProduct] | None:
        parts = self._vocabulary.native_parts
        return (parts[0], self.product) if parts else None

    @override
    def token_ids(self, columns: Sequence[int]) -> list[int]:
        tokens = self._tokens
        return [tokens[column] for column in columns] if tokens else list(columns)
