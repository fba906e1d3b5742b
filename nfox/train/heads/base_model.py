"""The trained weights of a base: a LoRA adapter on all its linear layers, or all its weights."""

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
from nfox.files.atomic import complete_files
from nfox.models.training_folders import ADAPTER_FOLDER, BASE_FOLDER
from nfox.models.transformers_target import TransformersTarget
from nfox.train.heads.joint_training import JointTraining


class TrainedBase:
    """The weights of a base that are trained; from here on the target is the adapted model.

    Args:
        target: a frozen target; adapters are put into its model, or all its weights unfrozen.
        joint: the settings of the base's training, whose `base` is not "frozen".

    Attributes:
        weights: the weights that are trained.
    """

    def __init__(self, target: TransformersTarget, joint: JointTraining) -> None:
        self.target = target
        self._adapted: Any = None
        if joint.base == "lora":
            self._adapted = _adapt(target, joint)
        else:
            target.model.requires_grad_(True)
        self.weights = [w for w in target.model.parameters() if w.requires_grad]

    @contextmanager
    def without_adapters(self) -> Iterator[None]:
        """Let the target compute without its adapters, without dropout and without gradients."""
        model: Any = self.target.model
        training = model.training
        model.eval()
        try:
            with torch.no_grad(), self._adapted.disable_adapter():
                yield
        finally:
            model.train(training)

    def write(self, folder: Path, tokenizer: Any, dtype: torch.dtype) -> None:
        """Write the adapter, or the whole base, which is converted to `dtype` in memory too.

        Args:
            folder: the output folder of the training.
            tokenizer: the base's tokenizer, which is written with a whole base.
            dtype: the dtype of a whole base; adapters stay float32.
        """
        if self._adapted is not None:
            # Else peft would add the base's own LM head, which did not change.
            with complete_files(folder / ADAPTER_FOLDER) as part:
                self._adapted.save_pretrained(part, save_embedding_layers=False)
            return
        with complete_files(folder / BASE_FOLDER) as part:
            self.target.model.to(dtype).save_pretrained(part)
            tokenizer.save_pretrained(part)


def keep_unpacked(target: TransformersTarget) -> None:
    """Keep 4 bit layers from packing their weights for the CPU, which cannot be undone.

    bitsandbytes packs at the first forward in evaluation mode; gradients are wrong from then on.

    Args:
        target: a target that has not computed anything yet.
    """
    for module in target.model.modules():
        if hasattr(module, _PACKS_FOR_CPU):
            setattr(module, _PACKS_FOR_CPU, False)


_PACKS_FOR_CPU = "support_avx512bf16_for_cpu"  # an attribute of `Linear4bit` in some versions


def _adapt(target: TransformersTarget, joint: JointTraining) -> Any:
    """Put LoRA adapters into a target's model and return peft's wrapper of it.

    The model's output is unchanged at first, since one factor of each adapter is 0.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=joint.rank,
        lora_alpha=joint.alpha,
        lora_dropout=joint.dropout,
        target_modules=_linear_layers(target.model),
    )
    with warnings.catch_warnings():
        # Some layers of GPT-2 have transposed weights, of which peft takes note with a warning.
        warnings.filterwarnings("ignore", "fan_in_fan_out")
        adapted = get_peft_model(target.model, config)
    target.model.train(target.model.training)  # new layers come in training mode
    return adapted


def _linear_layers(model: Any) -> list[str]:
    """Return the names of all linear layers, or their last parts where these identify them.

    The LM head is one of them, unless its weights are those of the embeddings: an adapter merged
    into the one would change the other.

    Raises:
        UsageError: if the model has no linear layer.
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
    last_parts = {name.rpartition(".")[2] for name in names}
    return names if any(part.isdigit() for part in last_parts) else sorted(last_parts)
