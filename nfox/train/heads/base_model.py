"""A base that is trained with its heads: by a LoRA on all its linear layers, or whole."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from nfox.errors import UsageError
from nfox.models.transformers_target import TransformersTarget
from nfox.train.heads.joint_options import Joint

ADAPTER, WHOLE = "adapter", "base"
"""Folders beside the heads: of the adapter in peft's layout, of the whole base."""


class TrainedBase:
    """What is learned of a base. The target goes on as the adapted one.

    Args:
        target: frozen; with adapters put into its model here, or with all its weights unfrozen.
        joint: how; its base is not frozen.

    Attributes:
        weights: that are trained.
    """

    def __init__(self, target: TransformersTarget, joint: Joint) -> None:
        self.target = target
        self._adapted: Any = None
        if joint.base == "lora":
            self._adapted = _adapt(target, joint)
        else:
            target.model.requires_grad_(True)
        self.weights = [w for w in target.model.parameters() if w.requires_grad]

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Let the target be what it was before: without adapters, without dropout."""
        model: Any = self.target.model
        training = model.training
        model.eval()
        try:
            with torch.no_grad(), self._adapted.disable_adapter():
                yield
        finally:
            model.train(training)

    def write(self, folder: Path, tokenizer: Any, dtype: torch.dtype) -> None:
        """Write what was learned; a whole base is then of this dtype.

        Args:
            folder: of the heads.
            tokenizer: goes with a whole base.
            dtype: of a whole base; adapters stay float32.
        """
        if self._adapted is not None:
            # Else peft would add the base's own LM head, which did not change.
            self._adapted.save_pretrained(folder / ADAPTER, save_embedding_layers=False)
            return
        self.target.model.to(dtype).save_pretrained(folder / WHOLE)
        tokenizer.save_pretrained(folder / WHOLE)


def keep_unpacked(target: TransformersTarget) -> None:
    """Keep 4 bit layers from packing their weights for the CPU, which would be for good.

    bitsandbytes does so at the first forward in evaluation mode; gradients are wrong from then on.

    Args:
        target: just loaded.
    """
    for module in target.model.modules():
        if hasattr(module, _PACKS):
            setattr(module, _PACKS, False)


_PACKS = "support_avx512bf16_for_cpu"  # of `Linear4bit`; some versions have it


def _adapt(target: TransformersTarget, joint: Joint) -> Any:
    """Put a LoRA into a target's model; it changes nothing yet: one of its factors is 0."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=joint.rank,
        lora_alpha=joint.alpha,
        lora_dropout=joint.dropout,
        target_modules=_linear(target.model),
    )
    with warnings.catch_warnings():
        # Some layers of GPT-2 have their weights the other way round: peft sees it, and says so.
        warnings.filterwarnings("ignore", "fan_in_fan_out")
        adapted = get_peft_model(target.model, config)
    target.model.train(target.model.training)  # new layers come in training mode
    return adapted


def _linear(model: Any) -> list[str]:
    """Return the names of all linear layers, by their last parts where these say enough.

    The LM head is one of them, unless its weights are those of the embeddings: what is merged into
    the one would change the other.
    """
    head = model.get_output_embeddings()
    tied = head.weight is model.get_input_embeddings().weight
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and not (tied and module is head)
    ]
    if not names:
        raise UsageError("the base has no linear layer to adapt", "train it whole, or heads only")
    lasts = {name.rpartition(".")[2] for name in names}
    return names if any(last.isdigit() for last in lasts) else sorted(lasts)
