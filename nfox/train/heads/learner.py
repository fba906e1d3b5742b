"""Heads are trained, with a frozen target that reads the texts for them as they come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from typing_extensions import override

from nfox.heads.base import IGNORE, Heads, Text, measure_accuracy
from nfox.models.transformers_target import TransformersTarget
from nfox.train.data.rows import Row, collate
from nfox.train.heads.joint_options import Joint
from nfox.train.learner import ROWS, Batch, Learner
from nfox.train.metrics import Measured


class HeadsLearner(Learner):
    """Heads and the target they learn from; only the heads are parameters of it.

    Args:
        heads: to be trained; moved to where the target's hidden states come out.
        target: frozen here.
        own_labels: learn the target's own choices at the labelled places, not the tokens there.
        joint: how heads and base are trained; here the base is frozen.
    """

    collate = staticmethod(collate)

    def __init__(
        self,
        heads: Heads,
        target: TransformersTarget,
        *,
        own_labels: bool = False,
        joint: Joint | None = None,
    ) -> None:
        super().__init__(target, target.dtype)
        target.model.requires_grad_(False)
        wide = torch.promote_types(target.dtype, torch.float32)
        self.heads = heads.to(target.output_device, wide)
        self.own_labels = own_labels
        self.joint = joint or Joint()

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Do nothing: a frozen base keeps no activations, and heads have few."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a batch, a mean over its labels, and numbers to log.

        Args:
            input_ids: [B, T], padded on the right.
            attention_mask: [B, T], 0 where padded; the Trainer counts tokens by it.
            labels: [B, T], the tokens that are learned, IGNORE elsewhere.
        """
        text = self.read(input_ids, labels)
        with self.rounding():
            return self.heads.loss(self.chosen(text) if self.own_labels else text, self.target)

    def read(self, input_ids: Tensor, labels: Tensor) -> Text:
        """Let the target read a batch."""
        hidden = self.target.hidden_states(input_ids, gradient=self.joint.base != "frozen")
        return Text(input_ids.to(hidden.device), hidden, labels.to(hidden.device))

    @torch.no_grad()
    def chosen(self, text: Text) -> Text:
        """Return a text whose labels are what the target says at the labelled places."""
        labels = torch.full_like(text.labels, IGNORE)
        learned = text.labels[:, 1:] != IGNORE
        before = text.hidden[:, :-1][learned]
        choices = [self.target.unembed(part).argmax(-1) for part in torch.split(before, ROWS)]
        labels[:, 1:][learned] = torch.cat(choices) if choices else labels.new_empty(0)
        return replace(text, labels=labels, chosen=True)

    @override
    def places(self, inputs: Batch) -> int:
        """Labels."""
        return int((inputs["labels"] != IGNORE).sum())

    @override
    def quick(self) -> tuple[list[nn.Parameter], float]:
        """The heads."""
        return list(self.heads.parameters()), self.joint.heads_rate

    @override
    def measure(self, rows: Dataset[Row], batch: int = 4, width: int = 10) -> Measured:
        """Args:
        rows: of tokens.
        batch: rows at a time.
        width: guesses for each depth.
        """
        total, places = 0.0, 0

        def texts(batches: Iterator[Batch]) -> Iterator[Text]:
            nonlocal total, places
            for inputs in batches:
                text, count = self.read(inputs["input_ids"], inputs["labels"]), self.places(inputs)
                own = self.chosen(text)
                loss, _ = self.heads.loss(own if self.own_labels else text, self.target)
                total, places = total + float(loss) * count, places + count
                yield own

        with self.measuring(rows, batch) as batches:
            width = min(width, self.target.vocabulary_size)
            accuracy = measure_accuracy(self.heads, self.target, texts(batches), width)
        return Measured(total / max(places, 1), accuracy, places)
