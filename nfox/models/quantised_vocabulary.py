"""The frequent part of a model's vocabulary matrix in 4 bits, which drafters guess with.

Zhao et al. 2025 (FR-Spec, arXiv 2502.14856): a draft needs the frequent tokens only, and what it
costs is mostly its vocabulary matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from nfox.decoding.target import Vocabulary
from nfox.models.native.product import NativeProduct
from nfox.models.native.quantising import GROUP, has_room_for_scales
from nfox.models.native.vocabulary import native_parts
from nfox.models.packed_layers import PackedLinear, is_tied

_LEAST_BYTES = 2**20  # of a matrix that does not stay in a core's nearest caches


def matrix_to_quantise(model: Any) -> Tensor | None:
    """Return the vocabulary matrix [V, D] of a model, where a copy of it in 4 bits is read faster
    than its LM head: it is in bfloat16, and no very small one. None where it is not so.

    Args:
        model: of transformers. A packed LM head whose weights are those of the input embeddings as
            well has its matrix there.
    """
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    layer = head
    if isinstance(head, PackedLinear) and head.product.bias is None:
        layer = embeddings if is_tied(model.config) else head
    if type(layer) not in (nn.Linear, nn.Embedding) or layer.weight.dtype != torch.bfloat16:
        return None
    weight: Tensor = layer.weight.detach()
    is_worth_it = weight.nbytes >= _LEAST_BYTES and weight.shape[1] % GROUP == 0
    return weight if is_worth_it and has_room_for_scales(weight) else None


class QuantisedVocabulary(Vocabulary):
    """The vocabulary of a target, whose logits are read off a copy of its LM head in 4 bits.

    A copy of all tokens takes 0.31 of the head's memory. The target judges the guesses by its own
    logits, so that the text stays the same.

    Args:
        vocabulary: of the target.
        weight: [V, D] of its LM head, see `matrix_to_quantise`.
        bias: [V] of its LM head; None for none.
        scaled: returns logits as the model leaves them, for products with the LM head.
        frequent_tokens: the token ids that the logits are of; none for all.

    Raises:
        NativeLibraryError: if there is no native library.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        weight: Tensor,
        bias: Tensor | None,
        scaled: Callable[[Tensor], Tensor],
        frequent_tokens: Sequence[int] = (),
    ) -> None:
        self._vocabulary, self._scaled, self._tokens = vocabulary, scaled, frequent_tokens
        self._ids = np.array(frequent_tokens, np.uint32) if frequent_tokens else None
        if frequent_tokens:
            rows = torch.tensor(frequent_tokens)
            weight = weight[rows]
            bias = None if bias is None else bias[rows]
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
    def native_parts(self) -> tuple[Tensor, NativeProduct] | None:
        """The embeddings and the product for the logits, as `NativeVocabulary` has them."""
        parts = native_parts(self._vocabulary)
        return (parts[0], self.product) if parts else None

    @override
    def token_ids(self, columns: Sequence[int]) -> list[int]:
        tokens = self._tokens
        return [tokens[column] for column in columns] if tokens else list(columns)

    @override
    def all_token_ids(self, count: int) -> NDArray[np.uint32]:
        return super().all_token_ids(count) if self._ids is None else self._ids
