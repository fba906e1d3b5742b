"""Heads and their base learn together: the base's own loss, and a share of the heads'."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from nfox.heads.base import IGNORE, Heads, Text, cross_entropy
from nfox.models.transformers_target import TransformersTarget
from nfox.train.heads.base_model import TrainedBase
from nfox.train.heads.joint_options import Joint
from nfox.train.heads.learner import HeadsLearner


class JointLearner(HeadsLearner):
    """Heads and what is trained of their base, which are its parameters.

    Cai et al. 2024 (arXiv 2401.10774), Medusa-2.

    Args:
        heads: to be trained.
        target: their base.
        own_labels: the heads learn the target's own choices, as it makes them by now.
        joint: how; the base is not frozen.
        dtype: that a float32 base is computed in.
    """

    def __init__(
        self,
        heads: Heads,
        target: TransformersTarget,
        *,
        own_labels: bool = False,
        joint: Joint,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(heads, target, own_labels=own_labels, joint=joint)
        self.dtype = dtype
        self.trained = TrainedBase(target, joint)
        # The weights alone: with the model itself, checkpoints would hold all that is frozen too.
        self.base = nn.ParameterList(self.trained.weights)

    @override
    def train(self, mode: bool = True) -> JointLearner:
        """The target's dropout follows."""
        super().train(mode)
        self.target.model.train(mode)
        return self

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Compute the base's activations twice instead of keeping them; see `TrainingArguments`."""
        self.target.model.activation_checkpointing_enable(**options)

    @override
    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        with self.rounding():
            text = self.read(input_ids, labels)
            own = self.divergence(text) if self.joint.self_distillation else self.surprise(text)
            heads, numbers = self.heads.loss(
                self.chosen(text) if self.own_labels else text, self.target
            )
        weight = self.joint.heads_weight(self.progress)
        numbers |= {"base_loss": float(own.detach()), "heads_loss": float(heads.detach())}
        return own + weight * heads, numbers | {"heads_weight": weight}

    def surprise(self, text: Text) -> Tensor:
        """Return the mean cross-entropy of what the base says over the labels."""
        labels = text.labels[:, 1:]
        learned = labels != IGNORE
        return cross_entropy(self.target.unembed(text.hidden[:, :-1][learned]), labels[learned])

    def divergence(self, text: Text) -> Tensor:
        """Return the mean over the labelled places of KL(base as it was || base as it is)."""
        learned = text.labels[:, 1:] != IGNORE
        said = self.target.unembed(text.hidden[:, :-1][learned]).log_softmax(-1)
        with self.trained.untouched():
            hidden = self.target.hidden_states(text.ids)[:, :-1][learned.to(text.hidden.device)]
            meant = self.target.unembed(hidden).log_softmax(-1)
        total = functional.kl_div(said, meant, log_target=True, reduction="sum")
        return total / learned.sum().clamp_min(1)
