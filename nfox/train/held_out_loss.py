"""The loss of a model on held-out texts: its quality as one number."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from nfox.errors import ModelError
from nfox.heads.base import IGNORE
from nfox.models.transformers_target import TransformersTarget
from nfox.train.data.rows import Row, collate
from nfox.train.learner import LOGIT_ROWS


@torch.inference_mode()
def held_out_loss(
    target: TransformersTarget, rows: Dataset[Row], batch: int = 4
) -> tuple[float, int]:
    """Return the mean cross-entropy of the labels in nats, and the number of labels.

    Args:
        target: a causal model.
        rows: rows of tokens and labels, as `nfox.train.data.rows.Rows` makes them.
        batch: the number of rows that are computed at a time.

    Raises:
        ModelError: if the model has an encoder, or its logits are no plain function of its hidden
            states.
    """
    if target.is_encoder_decoder or not target.can_unembed:
        raise ModelError("the held-out loss is measured of causal models with plain logits only")
    total, count = 0.0, 0
    loader: Any = DataLoader(rows, batch, collate_fn=collate)
    for inputs in loader:
        hidden = target.hidden_states(inputs["input_ids"])
        labels = inputs["labels"][:, 1:].to(hidden.device)
        learned = labels != IGNORE
        chunks = (
            torch.split(part, LOGIT_ROWS) for part in (hidden[:, :-1][learned], labels[learned])
        )
        for states, tokens in zip(*chunks, strict=True):
            loss = functional.cross_entropy(target.unembed(states), tokens, reduction="sum")
            total, count = total + float(loss), count + len(tokens)
    return total / max(count, 1), count
