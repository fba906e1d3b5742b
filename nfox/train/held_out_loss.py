"""The loss of a model on texts it has not learned from: its quality as one number."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from nfox.errors import ModelError
from nfox.heads.base import IGNORE
from nfox.models.transformers_target import TransformersTarget
from nfox.train.data.rows import Row, collate
from nfox.train.learner import ROWS


@torch.inference_mode()
def held_out_loss(
    target: TransformersTarget, rows: Dataset[Row], batch: int = 4
) -> tuple[float, int]:
    """Return the mean loss of the supervised tokens, in nats, and how many they are.

    Args:
        target: a causal model.
        rows: of tokens, as `nfox.train.data.rows.Rows` gives them.
        batch: rows at a time.

    Raises:
        ModelError: if the model is no causal one, or its logits cannot be made from its states.
    """
    if target.is_encoder_decoder or not target.can_unembed:
        raise ModelError("the held-out loss is measured of causal models with plain logits only")
    total, count = 0.0, 0
    loader: Any = DataLoader(rows, batch, collate_fn=collate)
    for inputs in loader:
        hidden = target.hidden_states(inputs["input_ids"])
        labels = inputs["labels"][:, 1:].to(hidden.device)
        learned = labels != IGNORE
        places = (hidden[:, :-1][learned], labels[learned])
        for before, wanted in zip(*(torch.split(part, ROWS) for part in places), strict=True):
            loss = functional.cross_entropy(target.unembed(before), wanted, reduction="sum")
            total, count = total + float(loss), count + len(wanted)
    return total / max(count, 1), count
