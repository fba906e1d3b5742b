"""From last hidden states to logits: the output embeddings of a model of transformers, and what it
does to their products.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nfox.errors import ModelError


class LanguageModelHead:
    """The LM head of a model, which its hidden states can be sent through without the model.

    Args:
        model: the model of transformers.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    @property
    def layer(self) -> Any:
        """The output embeddings."""
        return self._model.get_output_embeddings()

    @cached_property
    def _factors(self) -> tuple[float | None, ...]:
        """What logits are multiplied with, divided by and capped at."""
        names = ("logit_scale", "logits_scaling", "final_logit_softcapping")
        config = self._model.config.get_text_config(decoder=True)
        return tuple(getattr(config, name, None) for name in names)

    @property
    def is_scaled(self) -> bool:
        """Whether the output embeddings are not all of it: Cohere and Granite scale the logits,
        Gemma 2 caps them.
        """
        return any(self._factors)

    def scaled(self, products: Tensor) -> Tensor:
        """Return the logits [..., n], float32 or wider, of what the output embeddings gave."""
        if products.dtype == torch.float32 and not self.is_scaled:
            return products
        logits = products.to(torch.promote_types(products.dtype, torch.float32))
        scale, divisor, cap = self._factors
        logits = logits * scale if scale else logits  # a pass over [n, V] is not free
        logits = logits / divisor if divisor else logits
        return torch.tanh(logits / cap) * cap if cap else logits

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits [..., V] of last hidden states [..., D]."""
        return self.scaled(self.layer(hidden))

    def some_logits(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Return the logits [..., n] of some tokens alone, as `logits` gives those of all.

        Args:
            hidden: [..., D] last hidden states.
            tokens: [n] token ids.

        Raises:
            ModelError: if the LM head is no plain matrix, of which rows could be taken.
        """
        layer = self.layer
        if type(layer) is not nn.Linear or not layer.weight.is_floating_point():
            raise ModelError(
                f"the LM head is a {type(layer).__name__}, of which no rows can be taken",
                "leave --vocabulary_sample out",
            )
        bias = None if layer.bias is None else layer.bias[tokens]
        weight = layer.weight[tokens]
        return self.scaled(nn.functional.linear(hidden.to(weight.dtype), weight, bias))
