"""Metrics of something that was trained, measured on texts: means over labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from typing_extensions import override

from nfox.decoding import tree_shapes


class Metrics(ABC):
    """Means over the labels of texts.

    Attributes:
        loss: the loss of the training, in nats.
        label_count: the number of labels that the means are over.
    """

    loss: float
    label_count: int

    @abstractmethod
    def values(self) -> dict[str, float]:
        """Return the values that are logged, by name, the loss first."""

    @abstractmethod
    def means(self) -> list[float]:
        """Return all means in the order in which `with_means` takes them."""

    @abstractmethod
    def with_means(self, means: Sequence[float], label_count: int) -> Self:
        """Return metrics of the same shape with other means, such as those of all processes."""


@dataclass(frozen=True)
class MeanMetrics(Metrics):
    """The mean loss and other named means.

    Args:
        loss: the loss of the training, in nats.
        label_count: the number of labels that the means are over.
        others: the other means by name.
    """

    loss: float
    label_count: int
    others: dict[str, float]

    @override
    def values(self) -> dict[str, float]:
        return {"loss": self.loss, **self.others}

    @override
    def means(self) -> list[float]:
        return list(self.values().values())

    @override
    def with_means(self, means: Sequence[float], label_count: int) -> MeanMetrics:
        loss, *others = means
        return MeanMetrics(loss, label_count, dict(zip(self.others, others, strict=True)))


@dataclass(frozen=True)
class HeadsAccuracy(Metrics):
    """How often each head predicts the token that the target itself would choose.

    Args:
        loss: the heads' loss, as in training, a mean over labels.
        accuracy: [depth][rank] the share of labels at which the head of that depth has the
            target's token as its guess of that rank.
        label_count: the number of labels that the means are over.
    """

    loss: float
    accuracy: list[list[float]]
    label_count: int

    def tau(self, nodes: int = tree_shapes.MAX_NODES - 1) -> float:
        """Return the expected tokens per step of the best tree with that many drafted nodes."""
        return tree_shapes.fastest_shape(self.accuracy, None, max_nodes=nodes).expected_tau(
            self.accuracy
        )

    @override
    def values(self) -> dict[str, float]:
        """Return the loss, the expected tokens per step (tau), and each depth's top-1 and top-5
        accuracy.
        """
        values = {"loss": self.loss, "tau": self.tau()}
        for depth, rates in enumerate(self.accuracy, 1):
            values |= {f"depth{depth}_top1": rates[0], f"depth{depth}_top5": sum(rates[:5])}
        return values

    @override
    def means(self) -> list[float]:
        return [self.loss, *(rate for rates in self.accuracy for rate in rates)]

    @override
    def with_means(self, means: Sequence[float], label_count: int) -> HeadsAccuracy:
        loss, *rates = means
        width = len(self.accuracy[0])
        accuracy = [rates[i : i + width] for i in range(0, len(rates), width)]
        return HeadsAccuracy(loss, accuracy, label_count)
