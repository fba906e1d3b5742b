"""How good heads are on texts: their loss, and how often they foretell the target's own choice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from nfox import trees
from nfox.heads import IGNORE, Text, measure_accuracy
from nfox.train.learner import Learner
from nfox.train.rows import Row, collate


@dataclass(frozen=True)
class Measured:
    """What was found.

    Args:
        loss: of the heads, as in training, a mean over labels.
        accuracy: [depth][rank] how often a guess is the target's own choice.
        places: labels it was measured at.
    """

    loss: float
    accuracy: list[list[float]]
    places: int

    def tau(self, nodes: int = trees.MOST_NODES - 1) -> float:
        """Return the tokens per step to expect of the best tree of so many drafted nodes."""
        return trees.best(self.accuracy, None, most=nodes).tau(self.accuracy)


def measure(learner: Learner, rows: Dataset[Row], batch: int = 4, width: int = 10) -> Measured:
    """Measure heads.

    Args:
        learner: the heads and their target.
        rows: of tokens.
        batch: rows at a time.
        width: guesses for each depth.
    """
    total, places, training = 0.0, 0, learner.training

    def texts() -> Iterator[Text]:
        nonlocal total, places
        # Loaded by index: a sampler would draw from the random numbers that training goes on with.
        loader: Any = DataLoader(rows, batch, collate_fn=collate, generator=torch.Generator())
        for inputs in loader:
            text = learner.read(inputs["input_ids"], inputs["labels"])
            count = int((text.labels != IGNORE).sum())
            own = learner.chosen(text)
            loss, _ = learner.heads.loss(own if learner.own_labels else text, learner.target)
            total, places = total + float(loss) * count, places + count
            yield own

    learner.eval()
    try:
        with learner.rounding():
            width = min(width, learner.target.vocabulary)
            accuracy = measure_accuracy(learner.heads, learner.target, texts(), width)
    finally:
        learner.train(training)
    return Measured(total / max(places, 1), accuracy, places)
