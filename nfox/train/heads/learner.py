"""Training of heads on a frozen target, which reads every batch for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from typing_extensions import override

from nfox.heads.base import IGNORE, Heads, TextBatch, measure_accuracy
from nfox.models.transformers_target import TransformersTarget
from nfox.train.data.numbered_rows import collate
from nfox.train.data.rows import Row
from nfox.train.heads.joint_training import JointTraining
from nfox.train.heads.sampled_vocabulary import SampledVocabulary
from nfox.train.heads.savings import Savings
from nfox.train.learner import LOGIT_ROWS, Batch, Learner
from nfox.train.metrics import HeadsAccuracy

_FREQUENT = 0.98  # of what was learned; the rarest 2 % take more tokens than all the others


class HeadsLearner(Learner):
    """A learner whose parameters are the heads alone.

    Args:
        heads: the heads to train; they are moved to the device of the target's hidden states.
        target: the target, whose weights are frozen here.
        target_labels: learn the tokens that the target itself chooses at the labelled positions,
            not those of the data.
        joint: the settings of joint training; here the base is frozen.
        savings: what is saved of a training's work; nothing by default.
    """

    collate = staticmethod(collate)

    def __init__(
        self,
        heads: Heads,
        target: TransformersTarget,
        *,
        target_labels: bool = False,
        joint: JointTraining | None = None,
        savings: Savings | None = None,
    ) -> None:
        super().__init__(target, target.dtype)
        target.model.requires_grad_(False)
        dtype = torch.promote_types(target.dtype, torch.float32)
        self.heads = heads.to(target.output_device, dtype)
        self.target_labels = target_labels
        self.joint = joint or JointTraining()
        self.savings = savings or Savings()
        self._states: dict[int, Tensor] = {}  # of the rows that were read, by their numbers
        self._token_counts = torch.zeros(target.vocabulary_size, dtype=torch.long)

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Do nothing, since a frozen base keeps no activations, and heads have few."""

    @override
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        number: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the heads' loss on a batch, a mean over its labels, and numbers to log.

        Args:
            input_ids: [B, T] token ids, padded on the right.
            attention_mask: [B, T], 0 where padded; the Trainer counts tokens by it.
            labels: [B, T] the token ids that are learned, IGNORE elsewhere.
            number: [B] the indices of the rows, by which their states are kept; None to keep none.
        """
        text = (
            self._read_once(input_ids, attention_mask, labels, number)
            if number is not None and self.training
            else self.read(input_ids, labels)
        )
        with self.autocast():
            text = self.with_target_labels(text) if self.target_labels else text
            self.count_tokens(text)
            if not (self.savings.vocabulary_sample and self.training):
                return self.heads.loss(text, self.target)
            sample = SampledVocabulary(self.target, text, self.savings.vocabulary_sample)
            return self.heads.loss(sample.renumbered(text), sample)

    def count_tokens(self, text: TextBatch) -> None:
        """Count the labels of a batch for `frequent_tokens`, if it is learned from."""
        if self.training:
            tokens = text.labels[text.labels != IGNORE].cpu()
            self._token_counts += tokens.bincount(minlength=len(self._token_counts))

    def frequent_tokens(self) -> list[int]:
        """Return the token ids, rising, that make up 98 % of what was learned; empty where that is
        more than half of the vocabulary, or nothing was learned.
        """
        counts, tokens = self._token_counts.sort(descending=True)
        count = int((counts.cumsum(0) < _FREQUENT * counts.sum()).sum()) + 1
        is_few = 2 * count <= len(counts) and counts[0] > 0
        return tokens[:count].sort().values.tolist() if is_few else []

    def _read_once(
        self, ids: Tensor, attention_mask: Tensor, labels: Tensor, number: Tensor
    ) -> TextBatch:
        """Return a batch as `read` does, with states that are kept from the first time on."""
        numbers = number.tolist()
        missing = [row for row, name in enumerate(numbers) if name not in self._states]
        if missing:
            read = self.read(ids[missing], labels[missing]).hidden.cpu()
            for row, states in zip(missing, read, strict=True):
                length = int(attention_mask[row].sum())
                self._states[numbers[row]] = states[:length].clone()
        kept = [self._states[name] for name in numbers]
        device = self.target.output_device
        hidden = pad_sequence(kept, batch_first=True).to(device)
        return TextBatch(ids.to(device), hidden, labels.to(device))

    def read(self, input_ids: Tensor, labels: Tensor) -> TextBatch:
        """Return a batch with the target's hidden states.

        Args:
            input_ids: [B, T] token ids.
            labels: [B, T] the token ids that are learned, IGNORE elsewhere.
        """
        hidden = self.target.hidden_states(input_ids, gradient=self.joint.base != "frozen")
        return TextBatch(input_ids.to(hidden.device), hidden, labels.to(hidden.device))

    @torch.no_grad()
    def with_target_labels(self, text: TextBatch) -> TextBatch:
        """Return the text with the target's likeliest tokens in the place of its labels."""
        labels = torch.full_like(text.labels, IGNORE)
        learned = text.labels[:, 1:] != IGNORE
        states = text.hidden[:, :-1][learned]
        tokens = [self.target.unembed(part).argmax(-1) for part in torch.split(states, LOGIT_ROWS)]
        labels[:, 1:][learned] = torch.cat(tokens) if tokens else labels.new_empty(0)
        return replace(text, labels=labels, has_target_labels=True)

    @override
    def label_count(self, inputs: Batch) -> int:
        return int((inputs["labels"] != IGNORE).sum())

    @override
    def fast_parameters(self) -> tuple[list[nn.Parameter], float]:
        """Return the heads' parameters, and their learning rate divided by the base's."""
        return list(self.heads.parameters()), self.joint.effective_lr_multiplier

    @override
    def measure(self, rows: Dataset[Row], batch: int = 4, width: int = 10) -> HeadsAccuracy:
        """Return the heads' loss and their accuracy against the target's own tokens.

        Args:
            rows: the rows of tokens to measure on.
            batch: the number of rows that are computed at a time.
            width: the number of guesses of each head that are compared.
        """
        total, label_count = 0.0, 0

        def texts(batches: Iterator[Batch]) -> Iterator[TextBatch]:
            nonlocal total, label_count
            for inputs in batches:
                count = self.label_count(inputs)
                text = self.read(inputs["input_ids"], inputs["labels"])
                relabelled = self.with_target_labels(text)
                loss, _ = self.heads.loss(relabelled if self.target_labels else text, self.target)
                total, label_count = total + float(loss) * count, label_count + count
                yield relabelled

        with self.evaluation_batches(rows, batch) as batches:
            width = min(width, self.target.vocabulary_size)
            accuracy = measure_accuracy(self.heads, self.target, texts(batches), width)
        return HeadsAccuracy(total / max(label_count, 1), accuracy, label_count)
