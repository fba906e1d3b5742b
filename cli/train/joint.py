"""Settings of joint training of a base with its heads, by the names of the published configs."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Any, Literal, get_type_hints

from nfox.errors import UsageError
from nfox.train.heads.joint_training import BaseTraining, JointTraining

from .kinds import setting

LORA_SETTINGS = ("lora_r", "lora_alpha", "lora_dropout")
METHOD_PREFIX = "METHOD_"
"""The prefix of settings that is replaced by the method's name and an underscore."""


@dataclasses.dataclass
class JointArguments:
    """Settings of the base's training, and of the weight of the heads' loss beside the base's."""

    adapter: Literal["lora", "qlora"] | None = setting(
        "Train the base too, by adapters on all its linear layers; qlora: on a 4 bit base."
    )
    full_weights: bool = setting("Train the base too, all its weights.", False)
    lora_r: int = setting("Rank of the adapters.", JointTraining.rank)
    lora_alpha: int = setting("Adapters are scaled by alpha / rank.", JointTraining.alpha)
    lora_dropout: float = setting("Dropout of the adapters' input.", JointTraining.dropout)
    METHOD_only_heads: bool | None = setting(
        "Keep the base frozen; if it is false, --adapter lora is meant."
    )
    METHOD_heads_coefficient: float | None = setting(
        "Weight of the heads' loss beside the base's: 0.2, with self-distillation 0.01."
    )
    METHOD_scheduler: str | None = setting(
        "How this weight grows: constant, linear, sine, sine_RATIO; with self-distillation sine."
    )
    METHOD_lr_multiplier: float | None = setting(
        "Learning rate of the heads over the base's: 4; 1 while it is frozen."
    )
    METHOD_self_distillation: bool = setting(
        "The base learns its own predictions without adapters, not the data's tokens.", False
    )


def joint_arguments(method: str) -> type:
    """Return a dataclass of the fields of `JointArguments` with the method's name in theirs."""
    hints = get_type_hints(JointArguments).values()
    fields = [
        (_prefixed(f.name, method), hint, field(default=f.default, metadata=f.metadata))
        for f, hint in zip(dataclasses.fields(JointArguments), hints, strict=True)
    ]
    return dataclasses.make_dataclass("JointArguments", fields)


def _prefixed(name: str, method: str) -> str:
    return name.replace(METHOD_PREFIX, f"{method}_")


def read_joint(method: str, typed: Any, *, in_4bit: bool) -> JointTraining:
    """Return the settings of joint training that were typed.

    Args:
        method: the name of the heads' method.
        typed: an instance of the dataclass that `joint_arguments` returns.
        in_4bit: whether the base is loaded in 4 bit.

    Raises:
        UsageError: for settings that cannot work, or not together.
    """
    arguments = JointArguments(
        **{
            f.name: getattr(typed, _prefixed(f.name, method))
            for f in dataclasses.fields(JointArguments)
        }
    )
    if arguments.adapter == "qlora" and not in_4bit:
        raise UsageError("--adapter qlora is for a 4 bit base", "add --load_in_4bit True")
    return JointTraining(
        base=_base_training(arguments),
        self_distillation=arguments.METHOD_self_distillation,
        heads_coefficient=arguments.METHOD_heads_coefficient,
        scheduler=arguments.METHOD_scheduler,
        lr_multiplier=arguments.METHOD_lr_multiplier,
        rank=arguments.lora_r,
        alpha=arguments.lora_alpha,
        dropout=arguments.lora_dropout,
    )


def idle_settings(method: str, joint: JointTraining) -> dict[str, str]:
    """Return the settings of joint training that change nothing, with the reasons.

    Args:
        method: the name after `nfox train`.
        joint: what is trained of the base.
    """
    if joint.base == "lora":
        return {}
    idle = dict.fromkeys(LORA_SETTINGS, "no adapter is trained; --adapter lora trains one")
    if joint.base == "frozen":
        names = ("heads_coefficient", "scheduler")
        idle |= dict.fromkeys((f"{method}_{name}" for name in names), "the base is not trained")
    return idle


def _base_training(arguments: JointArguments) -> BaseTraining:
    """Return which weights of the base are trained.

    METHOD_only_heads keeps the base frozen even where an adapter is named, since published configs
    name one for heads alone too.

    Raises:
        UsageError: if both an adapter and all weights are to be trained.
    """
    if arguments.adapter and arguments.full_weights:
        raise UsageError("the base is trained either by --adapter or by --full_weights")
    if arguments.METHOD_only_heads:
        return "frozen"
    if arguments.full_weights:
        return "whole"
    by_adapter = (
        arguments.adapter
        or arguments.METHOD_self_distillation
        or arguments.METHOD_only_heads is False
    )
    return "lora" if by_adapter else "frozen"
