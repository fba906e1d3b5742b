"""Which process this is, of those that `accelerate launch` or `torchrun` started together."""

from __future__ import annotations

import logging
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

from nfox.errors import UsageError

from .options.groups import ModelArguments

if TYPE_CHECKING:
    from nfox.files.jsonl import Share


def own_share(model: ModelArguments, gpus: int, *, loads: bool = True) -> Share:
    """Find out which process this is, and keep to its own GPUs. Only the first one warns.

    Args:
        model: its options.
        gpus: of a process.
        loads: whether it is loaded here.
    """
    local = os.environ.get("LOCAL_RANK")
    if loads and model.device is None and (local is not None or gpus > 1):
        keep_to_own_gpus(int(local or 0), gpus)
    if local is not None:  # where one fails, the launcher ends the others: not in mid-drawing
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    from nfox.files.jsonl import Share

    share = Share(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    if share.rank:
        logging.getLogger("nfox").setLevel(logging.ERROR)
    return share


def keep_to_own_gpus(local: int, count: int) -> None:
    """Hide the GPUs of the other processes; without any GPU there is nothing to hide.

    Args:
        local: rank of this process on this machine.
        count: GPUs of a process.

    Raises:
        UsageError: if there are too few for all processes.
    """
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    numbers = map(str, range(torch.cuda.device_count())) if given is None else given.split(",")
    seen = [number.strip() for number in numbers if number.strip() not in ("", "-1")]
    if not seen and count == 1:
        return
    own = seen[local * count : (local + 1) * count]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(own)  # torch reads it when it first uses one
    there = min(torch.cuda.device_count(), len(own)) if own else 0
    if there < count:
        raise UsageError(
            f"process {local} needs {count} GPUs of its own and finds {there}: "
            f"{len(seen)} are visible on this machine ({','.join(seen) or 'none'})",
            "start fewer processes, lower --gpus-per-process, or say --device cpu",
        )


def split_over_gpus(model: ModelArguments, gpus: int) -> ModelArguments:
    """Return the options that split a model over all GPUs of a process, if it has several."""
    split = gpus > 1 and model.device_map is None
    return replace(model, device_map="auto") if split else model
