"""What a training starts from: a base, heads, new or given, and both put together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from pydantic import ValidationError
from transformers.integrations import is_deepspeed_zero3_enabled

from nfox import checkpoint, drafters
from nfox.devices import choose_dtype
from nfox.errors import ModelError, UsageError
from nfox.heads import Heads, HeadsConfig
from nfox.heads_drafter import HeadsDrafter
from nfox.loading import LoadedModel, load_model
from nfox.target import Target
from nfox.train.base import keep_unpacked
from nfox.train.joint_learner import JointLearner
from nfox.train.learner import Learner
from nfox.train.record import Job


def heads_class(method: str) -> type[HeadsDrafter]:
    """Return the class of a method that has heads.

    Raises:
        UsageError: if it has none.
    """
    found = drafters.method(method)
    if not issubclass(found, HeadsDrafter):
        made = {name: drafters.method(name) for name in drafters.names()}
        known = [name for name, kind in made.items() if issubclass(kind, HeadsDrafter)]
        raise UsageError(f"{method} has no heads to train", f"methods with: {', '.join(known)}")
    return found


def check_sizes(made: type[HeadsDrafter], job: Job) -> None:
    """Refuse sizes that no heads can have, before anything is loaded for them.

    Raises:
        UsageError: if there are such.
    """
    sizes: dict[str, Any] = {"hidden_size": 1, "vocab_size": 1}  # those of the base come later
    what = made.holds(job.heads, job.loading) if job.heads else None
    if what or not job.heads:
        _config(made, job, what.config if what else sizes)


def _config(made: type[HeadsDrafter], job: Job, sizes: dict[str, Any]) -> HeadsConfig:
    """Return the config that was asked for, with other sizes where nothing was."""
    try:
        return made.heads_class.Config.model_validate(sizes | job.config)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"--{job.method}_{first['loc'][0]}: {first['msg']}") from error


def load_base(job: Job) -> LoadedModel:
    """Load the base and refuse those that no heads can draft for."""
    loading = job.loading
    if job.joint.base == "whole":
        if loading.quantisation:
            raise UsageError(
                f"a base in {loading.quantisation} cannot be trained whole", "train it by LoRA"
            )
        loading = replace(loading, dtype="float32")  # 16 bit would lose small steps
    loaded = load_model(job.model, loading)
    target = loaded.target
    if job.joint.base != "frozen":
        keep_unpacked(target)
    if target.encodes or target.proposals == "nothing" or not target.unembeds:
        why = (
            "is an encoder-decoder model"
            if target.encodes
            else "keeps a recurrent state that cannot be rolled back"
            if target.proposals == "nothing"
            else "turns hidden states into logits in a way that heads cannot follow"
        )
        raise ModelError(f"{job.model} {why}", "heads are for causal models with attention")
    if loaded.tokenizer is None:
        raise ModelError(f"{job.model} has no tokenizer", "copy its files into the folder")
    return loaded


def make_heads(made: type[HeadsDrafter], job: Job, target: Target) -> Heads:
    """Make heads to begin with, or take those to go on with."""
    sizes: dict[str, Any] = {"hidden_size": target.hidden_size, "vocab_size": target.vocabulary}
    given = None
    if job.heads:
        given, what = made.load(job.model, target, job.heads, job.loading)
        sizes = what.config
    heads = made.heads_class(_config(made, job, sizes))
    if given is None:
        heads.start(target)
        return heads
    try:
        checkpoint.fill(heads, given.state_dict(), str(job.heads))
    except ModelError as error:
        odd = [name for name, value in job.config.items() if value != sizes.get(name)]
        raise UsageError(
            f"the heads in {job.heads} were made with another {', '.join(odd)}",
            f"leave --{job.method}_{odd[0]} out, or train new heads without --heads",
        ) from error
    return heads


def make_learner(job: Job, heads: Heads, target: Target) -> Learner:
    """Put heads and base together, as they are to be trained."""
    if job.joint.base == "frozen":
        return Learner(heads, target, own_labels=job.own_labels, joint=job.joint)
    if is_deepspeed_zero3_enabled():
        raise UsageError(
            "ZeRO-3 spreads weights that a base in training uses outside of its layers",
            "use ZeRO-2, or train the heads only",
        )
    dtype = target.dtype
    if job.joint.base == "whole":
        wanted = choose_dtype(job.loading.dtype, target.device)
        dtype = wanted if isinstance(wanted, torch.dtype) else dtype
    return JointLearner(heads, target, own_labels=job.own_labels, joint=job.joint, dtype=dtype)
