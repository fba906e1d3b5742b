"""What is found when something that was trained is measured on texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from typing_extensions import override

from nfox.decoding import tree_shapes


class Found(ABC):
    """Means over places of texts.

    Attributes:
        loss: as in training.
        places: it is a mean over so many.
    """

    loss: float
    places: int

    @abstractmethod
    def metrics(self) -> dict[str, float]:
        """Return what is logged, the loss first."""

    @abstractmethod
    def flat(self) -> list[float]:
        """Return all means, in an order that `like` knows."""

    @abstractmethod
    def like(self, means: Sequence[float], places: int) -> Self:
        """Return the same with other means, those of several processes together."""


@dataclass(frozen=True)
class Means(Found):
    """Means with a name each.

    Args:
        loss: as in training.
        places: they are means over so many.
        others: by name.
    """

    loss: float
    places: int
    others: dict[str, float]

    @override
    def metrics(self) -> dict[str, float]:
        return {"loss": self.loss, **self.others}

    @override
    def flat(self) -> list[float]:
        return list(self.metrics().values())

    @override
    def like(self, means: Sequence[float], places: int) -> Means:
        loss, *others = means
        return Means(loss, places, dict(zip(self.others, others, strict=True)))


@dataclass(frozen=True)
class Measured(Found):
    """How good heads are: how often they foretell the target's own choice.

    Args:
        loss: of the heads, as in training, a mean over labels.
        accuracy: [depth][rank] how often a guess is the target's own choice.
        places: labels it was measured at.
    """

    loss: float
    accuracy: list[list[float]]
    places: int

    def tau(self, nodes: int = tree_shapes.MAX_NODES - 1) -> float:
        """Return the tokens per step to expect of the best tree of so many drafted nodes."""
        return tree_shapes.fastest_shape(self.accuracy, None, max_nodes=nodes).expected_tau(
            self.accuracy
        )

    @override
    def metrics(self) -> dict[str, float]:
        """The tokens per step to expect, and the accuracy of each depth."""
        found = {"loss": self.loss, "tau": self.tau()}
        for depth, row in enumerate(self.accuracy, 1):
            found |= {f"depth{depth}_top1": row[0], f"depth{depth}_top5": sum(row[:5])}
        return found

    @override
    def flat(self) -> list[float]:
        return [self.loss, *(rate for row in self.accuracy for rate in row)]

    @override
    def like(self, means: Sequence[float], places: int) -> Measured:
        loss, *rates = means
        width = len(self.accuracy[0])
        rows = [rates[i : i + width] for i in range(0, len(rates), width)]
        return Measured(loss, rows, places)
