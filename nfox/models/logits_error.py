"""Whether a model computes numbers, and if not, why: its weights are none, or its dtype is too
narrow.

Logits say most of it, at the first step and in every other. Not all: a kernel of attention takes a
query that is NaN for one that attends to nothing, and the text goes on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import PreTrainedModel

from nfox.errors import ModelError
from nfox.files.tensors import is_finite, name_some
from nfox.models.packed_layers import PackedLinear


def check_weights(name: str, model: PreTrainedModel, tokenizer: Any) -> None:
    """Refuse a model some of whose weights are NaN or infinite, by their names.

    One pass over the weights. Not looked at are weights on the disk, and embeddings that no token
    of the tokenizer has: a padded matrix may hold anything there.

    Args:
        name: the model, as the person wrote it.
        model: the model of transformers.
        tokenizer: its tokenizer; None if it has none.

    Raises:
        ModelError: if there are any.
    """
    entry = model.get_input_embeddings().weight
    known = None if tokenizer is None else len(tokenizer)
    broken = {
        key: weight
        for key, weight in model.named_parameters()
        if not _is_usable(weight[:known] if weight is entry else weight)
    }
    for path, layer in model.named_modules():
        if isinstance(layer, PackedLinear) and (scales := layer.unusable_scales()) is not None:
            broken[f"{path}.weight"] = scales
    if broken:
        raise ModelError(f"{name}: its weights are not numbers{_names(broken)}", _hint(broken))


def logits_error(model: PreTrainedModel) -> ModelError:
    """Return the error that says why a model's logits are NaN or infinite.

    All weights are read for it, so it is for a model that has failed.
    """
    broken = {
        key: weight
        for key, weight in model.state_dict().items()
        if not _is_packed(weight) and not is_finite(weight)
    }
    dtype = str(model.dtype).removeprefix("torch.")
    message = f"{model.name_or_path or 'the model'}: its logits are not numbers (NaN or infinite)"
    if broken:
        return ModelError(f"{message}, as its weights are not{_names(broken)}", _hint(broken))
    hint = "try --dtype float32, and no quantisation"
    if model.dtype == torch.float16:
        hint = "numbers above 65504 are infinite in float16: try --dtype bfloat16"
    return ModelError(f"{message}; it runs in {dtype}", hint)


def _is_packed(weight: Any) -> bool:
    """Whether a weight is torchao's, which knows no more than its products."""
    return bool(is_traceable_wrapper_subclass(weight))


def _is_usable(weight: Tensor) -> bool:
    """Whether a weight is numbers; a vector may hold -inf, which rules something out."""
    if _is_packed(weight):
        weight = weight.dequantize()
    if weight.dim() > 1 or is_finite(weight):
        return is_finite(weight)
    return bool((weight.float() < torch.inf).all())  # NaN is not smaller either


def _names(broken: dict[str, Tensor]) -> str:
    in_float16 = any(weight.dtype == torch.float16 for weight in broken.values())
    return f": {name_some(broken)}" + ("; it runs in float16" if in_float16 else "")


def _hint(broken: dict[str, Tensor]) -> str:
    narrow = all(weight.dtype == torch.float16 for weight in broken.values())
    if narrow and not any(weight.isnan().any() for weight in broken.values()):
        return "numbers above 65504 are infinite in float16: try --dtype bfloat16"
    return "copy the checkpoint again; a training may have diverged"
