"""The learner of a consistency model, which maps any state of a Jacobi iteration to its fixed
point.

Its predictions after a state are trained to be those after the fixed point, which get no gradient
(the consistency loss), and to stay those of its own greedy text (the autoregressive loss). Kou et
al. 2024 (CLLM, arXiv 2403.00835).
"""

from __future__ import annotations

from itertools import groupby, takewhile
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from nfox.heads.base import IGNORE
from nfox.models.transformers_target import TransformersTarget
from nfox.train.cllm.branch_attention import BranchedBatch, read
from nfox.train.cllm.rows import collate
from nfox.train.heads.base_model import TrainedBase
from nfox.train.heads.joint_training import JointTraining
from nfox.train.learner import Batch, Learner

AR_WEIGHT = 10.0
"""The published weight of the autoregressive loss beside the consistency loss."""


class ConsistencyLearner(Learner):
    """A learner whose parameters are the trained weights of the target itself.

    Args:
        target: the model.
        joint: the settings of its training: all weights or adapters.
        dtype: the dtype that a float32 model computes in.
        ar_weight: the weight of the autoregressive loss.
    """

    collate = staticmethod(collate)

    def __init__(
        self,
        target: TransformersTarget,
        joint: JointTraining,
        dtype: torch.dtype,
        ar_weight: float = AR_WEIGHT,
    ) -> None:
        super().__init__(target, dtype)
        target.model.requires_grad_(False)
        self.trained_base = TrainedBase(target, joint)
        self.ar_weight = ar_weight
        # The weights alone: with the model itself, checkpoints would hold all that is frozen too.
        self.base = nn.ParameterList(self.trained_base.weights)

    @override
    def train(self, mode: bool = True) -> ConsistencyLearner:
        """Set the mode of the learner and of the target's model, which has dropout."""
        super().train(mode)
        self.target.model.train(mode)
        return self

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Recompute the model's activations in the backward pass instead of keeping them.

        Args:
            options: transformers' `TrainingArguments.activation_checkpointing_kwargs`.
        """
        self.target.model.activation_checkpointing_enable(**options)

    @override
    def label_count(self, inputs: Batch) -> int:
        """Return the number of blocks, over which the loss is a mean."""
        return int(inputs["block_count"].sum())

    @override
    def forward(self, **inputs: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a batch, a mean over its blocks, and numbers to log.

        The loss of a block is the consistency loss, a mean over the positions from the first one on
        at which its states differ, plus the weighted autoregressive loss, a mean over the tokens of
        its answer.

        Args:
            inputs: the batch of `nfox.train.cllm.rows.collate`.
        """
        with self.autocast():
            batch = BranchedBatch(inputs["input_ids"], inputs["branch"], inputs["prefix_length"])
            hidden = read(self.target, batch)
            inputs = {name: value.to(hidden.device) for name, value in inputs.items()}
            consistency_loss, forwarded = self._consistency_loss(hidden, inputs)
            ar_loss = self._ar_loss(hidden, inputs)
        losses = {"consistency": float(consistency_loss.detach()), "ar": float(ar_loss.detach())}
        return consistency_loss + self.ar_weight * ar_loss, losses | {"forward": forwarded}

    def _consistency_loss(self, hidden: Tensor, inputs: Batch) -> tuple[Tensor, float]:
        """Return the mean over blocks of KL(predictions after the teacher state || after the
        student state) in nats, and the mean number of tokens that one iteration on the student
        state puts right in a row.
        """
        learned = inputs["fixed_point"] != IGNORE
        states = _gather_nodes(hidden, inputs["student_nodes"], learned)
        student = self.target.unembed(states).log_softmax(-1)
        with torch.no_grad():
            states = _gather_nodes(hidden.detach(), inputs["teacher_nodes"], learned)
            teacher = self.target.unembed(states).log_softmax(-1)
        divergence = (teacher.exp() * (teacher - student)).sum(-1)
        loss = (divergence / inputs["block_positions"][learned]).sum() / inputs["block_count"].sum()
        right = (student.detach().argmax(-1) == inputs["fixed_point"][learned]).tolist()
        rows = torch.arange(len(learned), device=learned.device)[:, None].expand_as(learned)
        blocks = zip(rows[learned].tolist(), inputs["block"][learned].tolist(), strict=True)
        flags_of_blocks = groupby(zip(blocks, right, strict=True), key=lambda pair: pair[0])
        runs = [
            sum(1 for _ in takewhile(lambda pair: pair[1], flags)) for _, flags in flags_of_blocks
        ]
        return loss, sum(runs) / max(len(runs), 1)

    def _ar_loss(self, hidden: Tensor, inputs: Batch) -> Tensor:
        """Return the mean over blocks of the mean cross-entropy of their answer, in nats."""
        learned = inputs["labels"] != IGNORE
        logits = self.target.unembed(_gather_nodes(hidden, inputs["label_nodes"], learned))
        losses = nn.functional.cross_entropy(logits, inputs["labels"][learned], reduction="none")
        tokens = learned.sum(1, keepdim=True).clamp_min(1)
        weights = (inputs["block_count"][:, None] / tokens).expand_as(learned)[learned]
        return (weights * losses).sum() / inputs["block_count"].sum()


def _gather_nodes(hidden: Tensor, nodes: Tensor, learned: Tensor) -> Tensor:
    """Return [n, D] hidden states of the nodes that are learned from.

    Args:
        hidden: [B, N, D] hidden states.
        nodes: [B, P] numbers of nodes.
        learned: [B, P] bool, n of them True.
    """
    rows = torch.arange(len(nodes), device=nodes.device)[:, None].expand_as(nodes)
    return hidden[rows[learned], nodes[learned]]
