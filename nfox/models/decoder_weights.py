"""What a decoder of Llama's kind computes with: the norms of its layers, and the products of their
weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from nfox.models.fused_products import Activation, Norm, Product
from nfox.models.unsupported import UnsupportedError


@dataclass(frozen=True)
class LayerWeights:
    """What one layer computes with. Absent norms are None.

    Args:
        attention_norm: of the states that enter the attention.
        attended_norm: of what the attention gives, before it is added to the residual.
        mlp_norm: of the states that enter the MLP.
        mlp_out_norm: of what the MLP gives, before it is added to the residual.
        qkv: the product for queries, keys and values.
        query_norm: of queries: of each head's where it is as wide as a head, else of all at once.
        key_norm: of keys, likewise.
        out: the product of the attention's output.
        gate_up: the product of the MLP's gate and up.
        activation: of the gate.
        down: the product of the MLP's output.
        residual_scale: what is added to the residual is multiplied with it (Granite).
        scale: what the scores of attention are multiplied with.
        cap: the bound of the scores of attention, cap * tanh(score / cap) (Gemma 2); None for none.
        rotates: whether queries and keys are rotated by their positions.
    """

    attention_norm: Norm | None
    attended_norm: Norm | None
    mlp_norm: Norm | None
    mlp_out_norm: Norm | None
    qkv: Product
    query_norm: Norm | None
    key_norm: Norm | None
    out: Product
    gate_up: Product
    activation: Activation
    down: Product
    residual_scale: float
    scale: float
    cap: float | None
    rotates: bool


@dataclass(frozen=True)
class DecoderWeights:
    """What a decoder computes with.

    Args:
        layers: from the first to the last.
        norm: of the states that leave the last layer.
        unembedding: the product for the logits.
        embed: the input embeddings.
        embedding_scale: what they are multiplied with besides (Granite).
        rotary: computes the rotary position embeddings.
        num_heads: of queries.
        num_key_heads: of keys and values.
        head_dim: the width of a head.
        kinds: the kind of attention of every layer: "full_attention" where there is no window.
        window: how many positions the layers of another kind see; None where there are none.
        model_dtype: of the model.
        device: of all weights.
    """

    layers: tuple[LayerWeights, ...]
    norm: Norm
    unembedding: Product
    embed: nn.Module
    embedding_scale: float
    rotary: nn.Module
    num_heads: int
    num_key_heads: int
    head_dim: int
    kinds: tuple[str, ...]
    window: int | None
    model_dtype: torch.dtype
    device: torch.device

    @property
    def products(self) -> tuple[Product, ...]:
        """All products of the layers, and that for the logits."""
        layers = ((x.qkv, x.out, x.gate_up, x.down) for x in self.layers)
        return (*chain.from_iterable(layers), self.unembedding)


def has_room_for_copy(model: Any) -> bool:
    """Return whether a second copy of a model's weights takes less than half of the free memory."""
    size = sum(weight.nbytes for weight in model.parameters())
    return bool(2 * size < psutil.virtual_memory().available)


def scale_of_embeddings(embed: nn.Module) -> float:
    """Return what input embeddings are multiplied with, found by trying it.

    Raises:
        UnsupportedError: if they are not those of their weights.
    """
    weight: Tensor = embed.weight  # type: ignore[assignment]
    with torch.inference_mode():
        row = weight[:8].float()
        given = embed(torch.arange(len(row))).float()
        scale = float((given * row).sum() / row.square().sum())
        if not torch.allclose(given, row * scale, rtol=2e-2, atol=1e-3 * float(given.abs().max())):
            raise UnsupportedError("embeddings that are not those of their weights")
    return scale
