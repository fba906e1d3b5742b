"""Commands under `accelerate launch` or `torchrun`: a process's share of the work, and its GPUs."""

from __future__ import annotations

import logging
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

from nfox.errors import UsageError

from .options.engine import ModelArguments

if TYPE_CHECKING:
    from nfox.files.jsonl import WorkShare


def own_share(model: ModelArguments, gpus: int, *, loads: bool = True) -> WorkShare:
    """Return this process's share of the work, hide the GPUs of the other processes, and silence
    warnings in all processes but the first.

    Args:
        model: the options of the model; with a device of its own, no GPU is hidden.
        gpus: GPUs of each process.
        loads: whether this process loads the model.

    Raises:
        UsageError: if there are too few GPUs for all processes.
    """
    local_rank = os.environ.get("LOCAL_RANK")
    if loads and model.device is None and (local_rank is not None or gpus > 1):
        hide_other_gpus(int(local_rank or 0), gpus)
    if local_rank is not None:  # where one fails, the launcher ends the others: not in mid-drawing
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    from nfox.files.jsonl import WorkShare

    share = WorkShare(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    if share.rank:
        logging.getLogger("nfox").setLevel(logging.ERROR)
    return share


def hide_other_gpus(local_rank: int, count: int) -> None:
    """Hide the GPUs of the other processes from this one; a machine without GPUs is left as it is.

    Args:
        local_rank: rank of this process on this machine.
        count: GPUs of each process.

    Raises:
        UsageError: if there are too few for all processes.
    """
    import torch

    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    numbers = map(str, range(torch.cuda.device_count())) if listed is None else listed.split(",")
    visible = [number.strip() for number in numbers if number.strip() not in ("", "-1")]
    if not visible and count == 1:
        return
    own_gpus = visible[local_rank * count : (local_rank + 1) * count]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(own_gpus)  # torch reads it at its first use
    available = min(torch.cuda.device_count(), len(own_gpus)) if own_gpus else 0
    if available < count:
        raise UsageError(
            f"process {local_rank} needs {count} GPUs of its own and finds {available}: "
            f"{len(visible)} are visible on this machine ({','.join(visible) or 'none'})",
            "start fewer processes, lower --gpus-per-process, or say --device cpu",
        )


def split_over_gpus(model: ModelArguments, gpus: int) -> ModelArguments:
    """Return the model's options, with a device map where a process has several GPUs."""
    split = gpus > 1 and model.device_map is None
    return replace(model, device_map="auto") if split else model
