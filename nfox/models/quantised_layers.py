"""A model whose linear layers have weights of 8 or 4 bits, multiplied by the native library.

The layers take the places of the model's own, one after the other, and free their weights: at no
time is there much more in memory than the model. From then on the quantised model is the model, in
whatever way it is run.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from nfox.models.native.product import NativeProduct
from nfox.models.native.quantising import GROUP, WeightFormat, has_room_for_scales
from nfox.models.options import FormatError
from nfox.models.packed_layers import PackedLinear

log = logging.getLogger(__name__)

_LEAST_SHARE = 0.5  # of the weights of all layers; below it is said how little was quantised


def _can_be_quantised(module: nn.Module) -> bool:
    return (
        type(module) is nn.Linear
        and module.in_features % GROUP == 0
        and module.weight.dtype == torch.bfloat16  # some models keep some layers in float32
        and has_room_for_scales(module.weight)
    )


@torch.inference_mode()
def quantise_layers(
    name: str, model: Any, weight_format: WeightFormat, *, warns: bool = True
) -> None:
    """Quantise the linear layers of a model, which is used for inference only from then on.

    The vocabulary matrix has 8 bits in any case: it decides between tokens. What stays as it is:
    layers whose inputs are no multiple of 32 or whose weights are all tiny, and what is no linear
    layer.

    Args:
        name: the model, as the person wrote it.
        model: of transformers, on the CPU in bfloat16.
        weight_format: "int8" or "int4".
        warns: say where little of it was quantised.

    Raises:
        FormatError: if it has no layer that can be quantised.
    """
    head, quantised, left = model.get_output_embeddings(), 0, 0
    embeddings = {model.get_input_embeddings()}
    for path, module in list(model.named_modules()):
        if not _can_be_quantised(module):
            own = module.parameters(recurse=False)
            left += sum(w.numel() for w in own if w.dim() > 1 and module not in embeddings)
            continue
        quantised += module.weight.numel()
        chosen: WeightFormat = "int8" if module is head else weight_format
        packed = PackedLinear(module, NativeProduct(module.weight, module.bias, chosen))
        model.set_submodule(path, packed)
        if module is not head:  # whose weights may be those of the input embeddings
            del module.weight
    if not quantised:
        raise FormatError(
            f"{name} has no layer that --quantize {weight_format} knows",
            f"it quantises linear layers of a multiple of {GROUP} inputs: leave it out",
        )
    share = quantised / (quantised + left)
    if warns and share < _LEAST_SHARE:
        log.warning("only %.0f %% of the weights of %s are quantised", 100 * share, name)
