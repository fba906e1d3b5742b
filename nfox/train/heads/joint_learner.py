"""Joint training of heads and their base: the base's own loss, and a share of the heads' loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from nfox.heads.base import IGNORE, Heads, TextBatch, cross_entropy
from nfox.models.transformers_target import TransformersTarget
from nfox.train.heads.base_model import TrainedBase
from nfox.train.heads.joint_training import JointTraining
from nfox.train.heads.learner import HeadsLearner


class JointLearner(HeadsLearner):
    """A learner whose parameters are the heads and the trained weights of their base.

    Cai et al. 2024 (arXiv 2401.10774), Medusa-2.

    Args:
        heads: the heads to train.
        target: their base.
        target_labels: train the heads on the tokens that the target itself chooses at the current
            step, not on those of the data.
        joint: the settings of the base's training; the base is not frozen.
        dtype: the dtype that a float32 base computes in.
    """

    def __init__(
        self,
        heads: Heads,
        target: TransformersTarget,
        *,
        target_labels: bool = False,
        joint: JointTraining,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(heads, target, target_labels=target_labels, joint=joint)
        self.dtype = dtype
        self.trained_base = TrainedBase(target, joint)
        # The weights alone: with the model itself, checkpoints would hold all that is frozen too.
        self.base = nn.ParameterList(self.trained_base.weights)

    @override
    def train(self, mode: bool = True) -> JointLearner:
        """Set the mode of the learner and of the target's model, which has dropout."""
        super().train(mode)
        self.target.model.train(mode)
        return self

    @override
    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Recompute the base's activations in the backward pass instead of keeping them.

        Args:
            options: transformers' `TrainingArguments.activation_checkpointing_kwargs`.
        """
        self.target.model.activation_checkpointing_enable(**options)

    @override
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        number: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        with self.autocast():
            text = self.read(input_ids, labels)
            base_loss = (
                self.divergence(text) if self.joint.self_distillation else self.base_loss(text)
            )
            learned = self.with_target_labels(text) if self.target_labels else text
            self.count_tokens(learned)
            heads_loss, numbers = self.heads.loss(learned, self.target)
        weight = self.joint.heads_weight(self.progress)
        losses = {"base_loss": float(base_loss.detach()), "heads_loss": float(heads_loss.detach())}
        return base_loss + weight * heads_loss, numbers | losses | {"heads_weight": weight}

    def base_loss(self, text: TextBatch) -> Tensor:
        """Return the mean cross-entropy of the base's predictions with the labels, in nats."""
        labels = text.labels[:, 1:]
        learned = labels != IGNORE
        return cross_entropy(self.target.unembed(text.hidden[:, :-1][learned]), labels[learned])

    def divergence(self, text: TextBatch) -> Tensor:
        """Return the mean over labels of KL(base without adapters || base with them), in nats."""
        learned = text.labels[:, 1:] != IGNORE
        student = self.target.unembed(text.hidden[:, :-1][learned]).log_softmax(-1)
        with self.trained_base.without_adapters():
            hidden = self.target.hidden_states(text.ids)[:, :-1][learned.to(text.hidden.device)]
            teacher = self.target.unembed(hidden).log_softmax(-1)
        total = functional.kl_div(student, teacher, log_target=True, reduction="sum")
        return total / learned.sum().clamp_min(1)
