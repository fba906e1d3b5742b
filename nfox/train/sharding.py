"""Weights that are spread over processes, by FSDP or DeepSpeed: heads may be, models may not.

A model is used outside of the forward that its weights would be gathered for: some states are read
off it again and again, and its LM head belongs to the heads as well.
"""

from __future__ import annotations

import os
from typing import Any

from transformers.integrations import is_deepspeed_zero3_enabled

from nfox.errors import UsageError
from nfox.train.learner import Learner
from nfox.train.trainer import MODELS, LearnerTrainer

_ZERO_2 = "--deepspeed with ZeRO-2 spreads gradients and the optimizer's state"


def refuse_spread_base() -> None:
    """Refuse what spreads every model from its loading on.

    Raises:
        UsageError: if that was asked for.
    """
    if is_deepspeed_zero3_enabled():
        raise UsageError("ZeRO-3 spreads the weights of models, also frozen ones", _ZERO_2)


def refuse_spread_model(learner: Learner, args: Any) -> None:
    """Refuse FSDP where a whole model or its adapters are trained, or in one process.

    Raises:
        UsageError: if that was asked for.
    """
    if not _asked(args):
        return
    if any(name.startswith(MODELS) for name, _ in learner.named_parameters()):
        raise UsageError("FSDP is for heads: it would spread the weights of a model", _ZERO_2)
    if args.world_size < 2:
        raise _alone()


def check_spread(trainer: LearnerTrainer) -> None:
    """Refuse FSDP that accelerate leaves out or does in its older way.

    Raises:
        UsageError: if it was asked for and would not be done.
    """
    if not _asked(trainer.args):
        return
    if not trainer.is_fsdp_enabled:
        raise _alone()
    if trainer.accelerator.state.fsdp_plugin.fsdp_version != 2:
        raise UsageError("of FSDP the second version is offered", "leave `version` out")


def _alone() -> UsageError:
    return UsageError(
        "FSDP needs several processes with a GPU each",
        "torchrun --nproc_per_node=2 -m nfox.cli train ...; without GPUs leave --fsdp out",
    )


def _asked(args: Any) -> bool:
    launched = os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes")
    return bool(args.fsdp) or launched
