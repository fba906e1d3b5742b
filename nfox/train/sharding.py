"""Which weights may be sharded over processes by FSDP or DeepSpeed: those of heads, not of models.

A model is used outside of the forward pass that its weights would be gathered for: hidden states
are read from it in several calls, and its LM head belongs to the heads as well.
"""

from __future__ import annotations

import os
from typing import Any

from transformers.integrations import is_deepspeed_zero3_enabled

from nfox.errors import UsageError
from nfox.train.learner import Learner
from nfox.train.trainer import MODEL_PREFIXES, LearnerTrainer

_ZERO_2 = "--deepspeed with ZeRO-2 shards gradients and the optimizer's state"


def refuse_zero3() -> None:
    """Refuse DeepSpeed ZeRO-3, which shards every model from its loading on.

    Raises:
        UsageError: if ZeRO-3 is enabled.
    """
    if is_deepspeed_zero3_enabled():
        raise UsageError("ZeRO-3 shards the weights of models, also frozen ones", _ZERO_2)


def refuse_fsdp(learner: Learner, args: Any) -> None:
    """Refuse FSDP where a whole model or its adapters are trained, or in a single process.

    Args:
        learner: the learner that will be trained.
        args: transformers' `TrainingArguments`.

    Raises:
        UsageError: if FSDP is requested for such a training.
    """
    if not _fsdp_requested(args):
        return
    if any(name.startswith(MODEL_PREFIXES) for name, _ in learner.named_parameters()):
        raise UsageError("FSDP is for heads: it would shard the weights of a model", _ZERO_2)
    if args.world_size < 2:
        raise _single_process_error()


def check_fsdp(trainer: LearnerTrainer) -> None:
    """Refuse FSDP that accelerate would leave out, or do in its first version.

    Raises:
        UsageError: if FSDP is requested and would not be done as requested.
    """
    if not _fsdp_requested(trainer.args):
        return
    if not trainer.is_fsdp_enabled:
        raise _single_process_error()
    if trainer.accelerator.state.fsdp_plugin.fsdp_version != 2:
        raise UsageError("of FSDP the second version is offered", "leave `version` out")


def _single_process_error() -> UsageError:
    return UsageError(
        "FSDP needs several processes with a GPU each",
        "torchrun --nproc_per_node=2 -m nfox.cli train ...; without GPUs leave --fsdp out",
    )


def _fsdp_requested(args: Any) -> bool:
    launched = os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes")
    return bool(args.fsdp) or launched
