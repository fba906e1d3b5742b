"""What an adapter asks of a model's embeddings: rows for added tokens, and weights of their own."""

from __future__ import annotations

from typing import Any

import torch

from nfox.models.adapter_files import AdapterFiles
from nfox.models.checkpoint_keys import check_keys


def resize_embeddings(model: Any, files: AdapterFiles) -> None:
    """Give a model the rows that an adapter brings for its embeddings: whoever adds tokens saves
    the resized embeddings with the adapter.

    Raises:
        ModelError: if only one of two embeddings would get its new rows.
    """
    layers, paths = (
        (model.get_input_embeddings(), model.get_output_embeddings()),
        embedding_paths(model),
    )
    rows = [files.rows_of(path) for path in paths]
    wanted, size = max((count for count in rows if count), default=0), len(layers[0].weight)
    if not wanted or wanted == size:
        return
    is_tied = layers[0].weight is layers[1].weight
    if wanted > size and not is_tied and None in rows:
        check_keys(
            files.title,
            missing=[f"base_model.model.{paths[rows.index(None)]}.weight"],
            hint=f"it has {wanted} tokens, the base {size}: save it with both embeddings",
        )
    model.resize_token_embeddings(wanted, mean_resizing=False)


def embedding_paths(model: Any) -> list[str]:
    """Return the names of a model's input embedding and of its output embedding."""
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    return [path for layer in layers for path, module in model.named_modules() if module is layer]


def untie_adapted(model: Any) -> None:
    """Give the output embedding weights of its own, where they are those of the input embedding and
    either has an adapter: merged into the one, it would change the other.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    if not any(isinstance(layer, BaseTunerLayer) for layer in layers):
        return
    first, last = (
        layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer for layer in layers
    )
    if first.weight is last.weight:
        last.weight = torch.nn.Parameter(last.weight.detach().clone(), requires_grad=False)
        model.config.tie_word_embeddings = False
