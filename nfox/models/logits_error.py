"""Why the logits of a model are no numbers: its weights are none, or its dtype is too narrow."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from nfox.errors import ModelError
from nfox.files.tensors import is_finite, name_some


def logits_error(model: PreTrainedModel) -> ModelError:
    """Return the error that says why a model's logits are NaN or infinite.

    All weights are read for it, so it is for a model that has failed.
    """
    weights = {name: weight for name, weight in model.state_dict().items() if not is_finite(weight)}
    dtype = str(model.dtype).removeprefix("torch.")
    message = f"{model.name_or_path or 'the model'}: its logits are not numbers (NaN or infinite)"
    if weights:
        message += f", as its weights are not: {name_some(weights)}"
    if model.dtype == torch.float16 and not any(w.float().isnan().any() for w in weights.values()):
        hint = "numbers above 65504 are infinite in float16: try --dtype bfloat16"
        return ModelError(f"{message}; it runs in float16", hint)
    if weights:
        return ModelError(message, "copy the checkpoint again; a training may have diverged")
    return ModelError(f"{message}; it runs in {dtype}", "try --dtype float32, and no quantisation")
