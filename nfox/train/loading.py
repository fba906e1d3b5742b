"""What a training starts from: a model that is learned from, and perhaps is itself trained."""

from __future__ import annotations

from dataclasses import replace

import torch

from nfox.errors import ModelError, UsageError
from nfox.models.devices import choose_dtype
from nfox.models.loading import load_model
from nfox.models.options import LoadedModel, ModelOptions
from nfox.models.transformers_target import TransformersTarget
from nfox.train.heads.base_model import keep_unpacked
from nfox.train.heads.joint_options import BaseTraining


def load(model: str, loading: ModelOptions, base: BaseTraining, use: str) -> LoadedModel:
    """Load a causal model with attention and its tokenizer.

    Args:
        model: folder or hub id.
        loading: how.
        base: what of it will be trained.
        use: what such models are needed for, for the person.

    Raises:
        UsageError: if it cannot be trained so.
        ModelError: if it is another kind of model, or cannot be loaded.
    """
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
        why = (
            "is an encoder-decoder model"
            if target.is_encoder_decoder
            else "keeps a recurrent state that cannot be rolled back"
            if target.proposals == "nothing"
            else "turns hidden states into logits in a way that training cannot follow"
        )
        raise ModelError(f"{model} {why}", f"{use} causal models with attention")
    if loaded.tokenizer is None:
        raise ModelError(f"{model} has no tokenizer", "copy its files into the folder")
    return loaded


def computed_in(
    target: TransformersTarget, loading: ModelOptions, base: BaseTraining
) -> torch.dtype:
    """Return the dtype that a model is computed in, which is not that of weights in training."""
    wanted = choose_dtype(loading.dtype, target.device)
    return wanted if base == "whole" and isinstance(wanted, torch.dtype) else target.dtype
