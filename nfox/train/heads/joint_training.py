"""Settings of joint training: which weights of the base are trained with the heads, and how much
the heads' loss weighs beside the base's.

Medusa-2 (Cai et al. 2024, arXiv 2401.10774, section 2.2): the base is trained with its heads, and
a loss of its own keeps its predictions what they are. The heads' loss has a small weight, their
learning rate is higher than the base's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from nfox.errors import UsageError

BaseTraining = Literal["frozen", "lora", "whole"]
"""Which weights of the base are trained: none, a low-rank adapter of each linear layer, or all."""

_SCHEDULES = "constant, linear, sine or sine_RATIO with a ratio above 0 and at most 1"


@dataclass(frozen=True)
class JointTraining:
    """The settings of a base that is trained with its heads.

    Args:
        base: which weights of the base are trained.
        self_distillation: train the base on its own predictions without the adapters, not on the
            data's tokens.
        heads_coefficient: the weight of the heads' loss beside the base's; None is 0.2, or 0.01
            with self-distillation, as published. Not used while the base is frozen.
        scheduler: the schedule by which that weight grows, see `schedule_factor`; None is
            constant, or sine with self-distillation.
        lr_multiplier: the heads' learning rate divided by the base's; None is 4, or 1 for a frozen
            base.
        rank: the rank of the adapters.
        alpha: the adapters' output is scaled by alpha / rank.
        dropout: the dropout probability of the adapters' input.

    Raises:
        UsageError: if a value is out of range, or self-distillation is set without adapters.
    """

    base: BaseTraining = "frozen"
    self_distillation: bool = False
    heads_coefficient: float | None = None
    scheduler: str | None = None
    lr_multiplier: float | None = None
    rank: int = 32
    alpha: int = 16
    dropout: float = 0.05

    def __post_init__(self) -> None:
        if self.self_distillation and self.base != "lora":
            raise UsageError(
                "self-distillation needs adapters: its teacher is the base without them, and the "
                f"base is {self.base}",
                "train the base by LoRA",
            )
        for name in ("heads_coefficient", "lr_multiplier", "rank", "alpha"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name} must be above 0: {value}")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout must be from 0 to below 1: {self.dropout}")
        schedule_factor(self.effective_schedule, 0.0)

    @property
    def effective_coefficient(self) -> float:
        """The highest weight of the heads' loss beside the base's."""
        return self.heads_coefficient or (0.01 if self.self_distillation else 0.2)

    @property
    def effective_schedule(self) -> str:
        """The schedule by which the weight of the heads' loss grows."""
        return self.scheduler or ("sine" if self.self_distillation else "constant")

    def heads_weight(self, progress: float) -> float:
        """Return the weight of the heads' loss beside the base's.

        Args:
            progress: the share of the training that is done, from 0 to 1.
        """
        return self.effective_coefficient * schedule_factor(self.effective_schedule, progress)

    @property
    def effective_lr_multiplier(self) -> float:
        """The heads' learning rate divided by the base's."""
        return self.lr_multiplier or (1.0 if self.base == "frozen" else 4.0)

    def describe(self) -> str:
        """Return a few words on how the base is trained."""
        return "whole" if self.base == "whole" else f"by LoRA of rank {self.rank}"

    def record(self) -> dict[str, Any]:
        """Return the settings with their defaults filled in, for the record of the heads."""
        settings: dict[str, Any] = {
            "base": self.base,
            "lr_multiplier": self.effective_lr_multiplier,
        }
        if self.base != "frozen":
            settings |= {
                "self_distillation": self.self_distillation,
                "heads_coefficient": self.effective_coefficient,
                "scheduler": self.effective_schedule,
            }
        if self.base == "lora":
            settings |= {"rank": self.rank, "alpha": self.alpha, "dropout": self.dropout}
        return settings


def schedule_factor(schedule: str, progress: float) -> float:
    """Return the factor of a schedule for the weight of the heads' loss, from 0 to 1.

    Args:
        schedule: "constant"; "linear", from 0 to 1; "sine", the first quarter of a sine wave; or
            "sine_0.3", the same within the first 0.3 of the training.
        progress: the share of the training that is done, from 0 to 1.

    Raises:
        UsageError: if there is no such schedule.
    """
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return min(progress, 1.0)
    name, _, ratio = schedule.partition("_")
    try:
        end = float(ratio) if ratio or schedule != "sine" else 1.0
    except ValueError:
        end = math.nan
    if name != "sine" or not 0 < end <= 1:
        raise UsageError(f"no schedule of the heads' loss: {schedule}", f"expected {_SCHEDULES}")
    return math.sin(min(progress / end, 1.0) * math.pi / 2)
