"""How a base is trained with its heads, by the names of the published configs."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Any, Literal, get_type_hints

from nfox.errors import UsageError
from nfox.train.heads.joint_options import BaseTraining, Joint

from .kinds import about

NAMED = "METHOD_"
"""Stands before the names that have the method's name before them."""


@dataclasses.dataclass
class JointArguments:
    """What of the base is trained, and how much the heads count beside it."""

    adapter: Literal["lora", "qlora"] | None = about(
        "Train the base too, by adapters on all its linear layers; qlora: on a 4 bit base."
    )
    full_weights: bool = about("Train the base too, all its weights.", False)
    lora_r: int = about("Rank of the adapters.", Joint.rank)
    lora_alpha: int = about("They are scaled by alpha / rank.", Joint.alpha)
    lora_dropout: float = about("Of what goes into the adapters.", Joint.dropout)
    METHOD_only_heads: bool | None = about(
        "Keep the base frozen; if it is false, --adapter lora is meant."
    )
    METHOD_heads_coefficient: float | None = about(
        "What the heads' loss counts beside the base's: 0.2, with self-distillation 0.01."
    )
    METHOD_scheduler: str | None = about(
        "How that grows: constant, linear, sine, sine_RATIO; with self-distillation sine."
    )
    METHOD_lr_multiplier: float | None = about(
        "Learning rate of the heads over the base's: 4; 1 while it is frozen."
    )
    METHOD_self_distillation: bool = about(
        "The base learns to say what it says without adapters, not what the data say.", False
    )


def joint_arguments(method: str) -> type:
    """Make a dataclass of these with the method's name in theirs."""
    hints = get_type_hints(JointArguments).values()
    fields = [
        (_named(f.name, method), hint, field(default=f.default, metadata=f.metadata))
        for f, hint in zip(dataclasses.fields(JointArguments), hints, strict=True)
    ]
    return dataclasses.make_dataclass("JointArguments", fields)


def _named(name: str, method: str) -> str:
    return name.replace(NAMED, f"{method}_")


def read_joint(method: str, typed: Any, *, in_4bit: bool) -> Joint:
    """Return how the base is trained.

    Args:
        method: whose heads.
        typed: one of what `joint_arguments` makes.
        in_4bit: whether the base is loaded so.

    Raises:
        UsageError: for what cannot be done, or not together.
    """
    given = JointArguments(
        **{
            f.name: getattr(typed, _named(f.name, method))
            for f in dataclasses.fields(JointArguments)
        }
    )
    if given.adapter == "qlora" and not in_4bit:
        raise UsageError("--adapter qlora is for a 4 bit base", "add --load_in_4bit True")
    return Joint(
        base=_base(given),
        self_distillation=given.METHOD_self_distillation,
        heads_coefficient=given.METHOD_heads_coefficient,
        scheduler=given.METHOD_scheduler,
        lr_multiplier=given.METHOD_lr_multiplier,
        rank=given.lora_r,
        alpha=given.lora_alpha,
        dropout=given.lora_dropout,
    )


def _base(given: JointArguments) -> BaseTraining:
    """Return what of the base is trained; published configs name adapters for heads alone too."""
    if given.adapter and given.full_weights:
        raise UsageError("the base is trained either by --adapter or by --full_weights")
    if given.METHOD_only_heads:
        return "frozen"
    if given.full_weights:
        return "whole"
    asked = given.adapter or given.METHOD_self_distillation or given.METHOD_only_heads is False
    return "lora" if asked else "frozen"
