"""Load the model that a training starts from: to learn from it, and perhaps to train it as well."""

from __future__ import annotations

from dataclasses import replace

import torch

from nfox.errors import ModelError, UsageError
from nfox.models.devices import choose_dtype
from nfox.models.loading import load_model
from nfox.models.options import LoadedModel, ModelOptions
from nfox.models.transformers_target import TransformersTarget
from nfox.train.heads.base_model import keep_unpacked
from nfox.train.heads.joint_training import BaseTraining


def load(model: str, loading: ModelOptions, base: BaseTraining, use: str) -> LoadedModel:
    """Load a causal model with attention and its tokenizer, to train with.

    Args:
        model: the folder or hub id of the model.
        loading: how it is loaded.
        base: what of the model will be trained.
        use: what causal models are needed for, as the beginning of an error's hint.

    Raises:
        UsageError: if the model cannot be trained as it would be loaded.
        ModelError: if the model is of another kind, or cannot be loaded.
    """
    if base != "frozen" and loading.weight_bits:
        raise UsageError(
            f"a base in {loading.weight_bits} has no gradients",
            "quantise it to 4bit, and train a LoRA",
        )
    if base == "whole":
        if loading.quantisation:
            raise UsageError(
                f"a base in {loading.quantisation} cannot be trained whole", "train it by LoRA"
            )
        loading = replace(loading, dtype="float32")  # 16 bit would lose small steps
    loaded = load_model(model, loading)
    target = loaded.target
    if base != "frozen":
        keep_unpacked(target)
    if target.is_encoder_decoder or target.proposals == "nothing" or not target.can_unembed:
        reason = (
            "is an encoder-decoder model"
            if target.is_encoder_decoder
            else "keeps a recurrent state that cannot be rolled back"
            if target.proposals == "nothing"
            else "turns hidden states into logits in a way that training cannot follow"
        )
        raise ModelError(f"{model} {reason}", f"{use} causal models with attention")
    if loaded.tokenizer is None:
        raise ModelError(f"{model} has no tokenizer", "copy its files into the folder")
    return loaded


def computation_dtype(
    target: TransformersTarget, loading: ModelOptions, base: BaseTraining
) -> torch.dtype:
    """Return the dtype that a model computes in, which differs from that of float32 weights in
    training.

    Args:
        target: the model.
        loading: the options of its loading, whose dtype is the one to compute in.
        base: what of the model is trained.
    """
    chosen = choose_dtype(loading.dtype, target.device)
    return chosen if base == "whole" and isinstance(chosen, torch.dtype) else target.dtype
