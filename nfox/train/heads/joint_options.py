"""Heads alone, or heads and their base together: what is learned, and how much each counts.

Medusa-2 (Cai et al. 2024, arXiv 2401.10774, section 2.2): the base learns to be drafted for, while
a loss of its own keeps it what it is. The heads' loss gets a small weight, and they learn faster.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from nfox.errors import UsageError

BaseTraining = Literal["frozen", "lora", "whole"]
"""What of the base is trained: nothing, a low-rank adapter of each linear layer, or all of it."""

_SCHEDULES = "constant, linear, sine or sine_RATIO with a ratio above 0 and at most 1"


@dataclass(frozen=True)
class Joint:
    """How the base is trained with its heads.

    Args:
        base: what of it is trained.
        self_distillation: it is to say what it said without its adapters, not what the data say.
        heads_coefficient: the heads' loss counts so much; None is 0.2, or 0.01 with
            self-distillation, as published. Without meaning while the base is frozen.
        scheduler: how that grows, see `strength`; None is constant, or sine with self-distillation.
        lr_multiplier: the heads' learning rate over the base's; None is 4, or 1 for a frozen base.
        rank: of the adapters.
        alpha: they are scaled by alpha / rank.
        dropout: of what goes into them.

    Raises:
        UsageError: if these do not go together.
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
        strength(self.schedule, 0.0)

    @property
    def coefficient(self) -> float:
        """What the heads' loss counts beside the base's at most."""
        return self.heads_coefficient or (0.01 if self.self_distillation else 0.2)

    @property
    def schedule(self) -> str:
        """How the heads' loss grows."""
        return self.scheduler or ("sine" if self.self_distillation else "constant")

    def heads_weight(self, progress: float) -> float:
        """Return what the heads' loss counts beside the base's.

        Args:
            progress: the share of the training that is done.
        """
        return self.coefficient * strength(self.schedule, progress)

    @property
    def heads_rate(self) -> float:
        """The heads' learning rate as a multiple of the base's."""
        return self.lr_multiplier or (1.0 if self.base == "frozen" else 4.0)

    def spelled(self) -> str:
        """Say how the base is trained, in a few words."""
        return "whole" if self.base == "whole" else f"by LoRA of rank {self.rank}"

    def record(self) -> dict[str, Any]:
        """Return what was settled, for the record of the heads."""
        said: dict[str, Any] = {"base": self.base, "lr_multiplier": self.heads_rate}
        if self.base != "frozen":
            said |= {
                "self_distillation": self.self_distillation,
                "heads_coefficient": self.coefficient,
                "scheduler": self.schedule,
            }
        if self.base == "lora":
            said |= {"rank": self.rank, "alpha": self.alpha, "dropout": self.dropout}
        return said


def strength(schedule: str, progress: float) -> float:
    """Return how far the heads' loss counts, from 0 to 1.

    Args:
        schedule: "constant", "linear", "sine" (the first quarter of its wave), or "sine_0.3", which
            is over after that share of the training.
        progress: the share of the training that is done.

    Raises:
        UsageError: if there is no such schedule.
    """
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return min(progress, 1.0)
    name, _, ratio = schedule.partition("_")
    try:
        over = float(ratio) if ratio or schedule != "sine" else 1.0
    except ValueError:
        over = math.nan
    if name != "sine" or not 0 < over <= 1:
        raise UsageError(f"no schedule of the heads' loss: {schedule}", f"expected {_SCHEDULES}")
    return math.sin(min(progress / over, 1.0) * math.pi / 2)
