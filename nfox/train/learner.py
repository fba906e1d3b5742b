"""The interface between what is trained and the trainer: a loss over batches, and its metrics.

Trained weights stay float32 (or wider, for a wider target) and are rounded to the dtype of the
computation where they are used, so that small optimizer steps are not lost.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader, Dataset

from nfox.models.transformers_target import TransformersTarget
from nfox.train.metrics import MeanMetrics, Metrics

Batch = dict[str, Tensor]

LOGIT_ROWS = 2048
"""The number of positions whose logits over the whole vocabulary are in memory at once."""


class Learner(nn.Module, ABC):
    """A module whose parameters are what is trained; the target it learns from is no part of them.

    Args:
        target: the model that is served.
        dtype: the dtype that the target computes in.

    Attributes:
        collate: a function that makes a batch of rows.
        progress: the share of the training that is done, from 0 to 1; the trainer sets it.
    """

    accepts_loss_kwargs = True  # makes the Trainer call `_get_num_items_in_batch` for every step
    collate: Callable[[Sequence[Any]], Batch]

    def __init__(self, target: TransformersTarget, dtype: torch.dtype) -> None:
        super().__init__()
        self.target = target
        self.dtype = dtype
        self.progress = 0.0

    @abstractmethod
    def label_count(self, inputs: Batch) -> int:
        """Return the number of labels (or other units) that the loss of a batch is a mean over."""

    def measure(self, rows: Dataset[Any], batch: int = 4) -> Metrics:
        """Return the mean loss over rows, and the means of the numbers that the loss reports.

        Args:
            rows: the rows to measure on.
            batch: the number of rows that are computed at a time.
        """
        sums: dict[str, float] = {"loss": 0.0}
        total = 0
        with self.evaluation_batches(rows, batch) as batches:
            for inputs in batches:
                loss, numbers = self(**{n: x.to(self.target.device) for n, x in inputs.items()})
                count = self.label_count(inputs)
                for name, value in {"loss": float(loss), **numbers}.items():
                    sums[name] = sums.get(name, 0.0) + count * value
                total += count
        loss, *others = (value / max(total, 1) for value in sums.values())
        return MeanMetrics(loss, total, dict(zip(list(sums)[1:], others, strict=True)))

    def fast_parameters(self) -> tuple[list[nn.Parameter], float]:
        """Return the parameters with a learning rate of their own, and the factor
        between it and that of the others.
        """
        return [], 1.0

    @contextmanager
    def evaluation_batches(self, rows: Dataset[Any], batch: int) -> Iterator[Iterator[Batch]]:
        """Yield the batches of some rows, with the learner in evaluation mode, without gradients,
        and without a change to the state of random number generators.
        """
        # Loaded by index: a sampler would draw from the random numbers that training goes on with.
        loader: Any = DataLoader(rows, batch, collate_fn=self.collate, generator=torch.Generator())
        training = self.training
        self.eval()
        try:
            with torch.no_grad(), self.autocast(), unsharded(self):
                yield iter(loader)
        finally:
            self.train(training)

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Compute in `dtype` where it is a 16 bit one, from parameters that stay float32."""
        # Without the cache: a weight rounded once without gradients would stay without them.
        with torch.autocast(
            self.target.output_device.type,
            self.dtype,
            enabled=self.dtype in (torch.bfloat16, torch.float16),
            cache_enabled=False,
        ):
            yield


@contextmanager
def unsharded(module: nn.Module) -> Iterator[None]:
    """Gather the weights of a module that FSDP shards over processes, and shard them again."""
    sharded = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in sharded:
        part.unshard()
    try:
        yield
    finally:
        for part in sharded:
            part.reshard()
