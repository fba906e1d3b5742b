"""What is trained: heads, with a frozen target that reads the texts for them as they come.

The heads' weights stay float32 (wider for a wider target) and are rounded to the target's dtype
where they are used, so that small steps are not lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from nfox.heads import IGNORE, Heads, Text
from nfox.target import Target
from nfox.train.joint import Joint

ROWS = 2048
"""Places whose logits over the whole vocabulary are in memory at once."""


class Learner(nn.Module):
    """Heads and the target they learn from; only the heads are parameters of it.

    Args:
        heads: to be trained; moved to where the target's hidden states come out.
        target: frozen here.
        own_labels: learn the target's own choices at the labelled places, not the tokens there.
        joint: how heads and base are trained; here the base is frozen.

    Attributes:
        dtype: that is computed in.
        progress: the share of the training that is done; kept by the trainer.
    """

    accepts_loss_kwargs = True  # makes the Trainer count the labels of a step over all processes

    def __init__(
        self,
        heads: Heads,
        target: Target,
        *,
        own_labels: bool = False,
        joint: Joint | None = None,
    ) -> None:
        super().__init__()
        target.model.requires_grad_(False)
        wide = torch.promote_types(target.dtype, torch.float32)
        self.heads = heads.to(target.last_device, wide)
        self.target = target
        self.own_labels = own_labels
        self.joint = joint or Joint()
        self.dtype = target.dtype
        self.progress = 0.0

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
        hidden = self.target.hidden(input_ids, gradient=self.joint.base != "frozen")
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

    @contextmanager
    def rounding(self) -> Iterator[None]:
        """Compute in the target's dtype, or that of a joint training, if it is a 16 bit one."""
        dtype = self.dtype
        # Without the cache: a weight rounded once without gradients would stay without them.
        with torch.autocast(
            self.target.last_device.type,
            dtype,
            enabled=dtype in (torch.bfloat16, torch.float16),
            cache_enabled=False,
        ):
            yield
