"""A model learns to see the end of a Jacobi iteration from any of its states: a consistency model.

What it says after a state is to be what it says after the fixed point, whose distribution is taken
as it is; and it goes on saying its text. Kou et al. 2024 (CLLM, arXiv 2403.00835).
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from nfox.heads.base import IGNORE
from nfox.models.transformers_target import TransformersTarget
from nfox.train.cllm.branch_attention import Woven, read
from nfox.train.cllm.rows import collate
from nfox.train.heads.base_model import TrainedBase
from nfox.train.heads.joint_options import Joint
from nfox.train.learner import Batch, Learner

AR_WEIGHT = 10.0
"""What its own text counts beside the consistency, as published."""


class ConsistencyLearner(Learner):
    """A model, and what of it is trained, which are the parameters.

    Args:
        target: the model.
        joint: how it is trained: whole or by adapters.
        dtype: that a float32 model is computed in.
        ar_weight: what the loss of the text counts.
    """

    collate = staticmethod(collate)

    def __init__(
        self,
        target: TransformersTarget,
        joint: Joint,
        dtype: torch.dtype,
        ar_weight: float = AR_WEIGHT,
    ) -> None:
        super().__init__(target, dtype)
        target.model.requires_grad_(False)
        self.trained = TrainedBase(target, joint)
        self.ar_weight = ar_weight
        # The weights alone: with the model itself, checkpoints would hold all that is frozen too.
        self.base = nn.ParameterList(self.trained.weights)

    @override
    def train(self, mode: bool = True) -> ConsistencyLearner:
        """The target's dropout follows."""
        super().train(mode)
        self.target.model.train(mode)
        return self

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Compute activations twice instead of keeping them; see `TrainingArguments`."""
        self.target.model.activation_checkpointing_enable(**options)

    @override
    def places(self, inputs: Batch) -> int:
        """Blocks."""
        return int(inputs["blocks"].sum())

    def forward(self, **inputs: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a batch, a mean over its blocks, and numbers to log.

        A block counts the mean over its places from the first one on where its states differ, and
        the mean over its answer's tokens with a weight.

        Args:
            inputs: see `nfox.train.cllm.rows.collate`.
        """
        with self.rounding():
            woven = Woven(inputs["input_ids"], inputs["owner"], inputs["begin"])
            hidden = read(self.target, woven)
            inputs = {name: value.to(hidden.device) for name, value in inputs.items()}
            consistency, forward = self._consistency(hidden, inputs)
            text = self._text(hidden, inputs)
        numbers = {"consistency": float(consistency.detach()), "ar": float(text.detach())}
        return consistency + self.ar_weight * text, numbers | {"forward": forward}

    def _consistency(self, hidden: Tensor, inputs: Batch) -> tuple[Tensor, float]:
        """Return the mean over blocks of KL(what is said after the better state || after the
        other), and how many tokens in a row the other one has right after one iteration.
        """
        learned = inputs["wanted"] != IGNORE
        said = self.target.unembed(_nodes(hidden, inputs["student"], learned)).log_softmax(-1)
        with torch.no_grad():
            better = _nodes(hidden.detach(), inputs["teacher"], learned)
            meant = self.target.unembed(better).log_softmax(-1)
        divergence = (meant.exp() * (meant - said)).sum(-1)
        right = (said.detach().argmax(-1) == inputs["wanted"][learned]).tolist()
        rows = torch.arange(len(learned), device=learned.device)[:, None].expand_as(learned)
        blocks = zip(rows[learned].tolist(), inputs["block"][learned].tolist(), strict=True)
        runs = [
            _leading(flag for _, flag in places)
            for _, places in groupby(zip(blocks, right, strict=True), key=lambda place: place[0])
        ]
        whole = inputs["blocks"].sum()
        return (divergence / inputs["span"][learned]).sum() / whole, sum(runs) / max(len(runs), 1)

    def _text(self, hidden: Tensor, inputs: Batch) -> Tensor:
        """Return the mean over blocks of their answer's mean cross-entropy."""
        learned = inputs["labels"] != IGNORE
        logits = self.target.unembed(_nodes(hidden, inputs["said"], learned))
        surprise = nn.functional.cross_entropy(logits, inputs["labels"][learned], reduction="none")
        tokens = learned.sum(1, keepdim=True).clamp_min(1)
        share = (inputs["blocks"][:, None] / tokens).expand_as(learned)[learned]
        return (share * surprise).sum() / inputs["blocks"].sum()


def _nodes(hidden: Tensor, nodes: Tensor, learned: Tensor) -> Tensor:
    """Return [n, D] states of the nodes [B, P] that are learned from."""
    rows = torch.arange(len(nodes), device=nodes.device)[:, None].expand_as(nodes)
    return hidden[rows[learned], nodes[learned]]


def _leading(flags: Any) -> int:
    """Return how many of the first flags are set."""
    count = 0
    for flag in flags:
        if not flag:
            break
        count += 1
    return count
