"""Something that is trained, as the one trainer sees it: a loss over batches, and a measure of it.

Weights that are trained stay float32 (wider for a wider target) and are rounded to the dtype that
is computed in where they are used, so that small steps are not lost.
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
from nfox.train.metrics import Found, Means

Batch = dict[str, Tensor]

ROWS = 2048
"""Places whose logits over the whole vocabulary are in memory at once."""


class Learner(nn.Module, ABC):
    """What is trained, which are its parameters, and what it learns from, which are not.

    Args:
        target: the model that is served.
        dtype: that is computed in.

    Attributes:
        collate: makes a batch of rows.
        progress: the share of the training that is done; kept by the trainer.
    """

    accepts_loss_kwargs = True  # makes the Trainer count the places of a step
    collate: Callable[[Sequence[Any]], Batch]

    def __init__(self, target: TransformersTarget, dtype: torch.dtype) -> None:
        super().__init__()
        self.target = target
        self.dtype = dtype
        self.progress = 0.0

    @abstractmethod
    def places(self, inputs: Batch) -> int:
        """Return what the loss of a batch is a mean over."""

    def measure(self, rows: Dataset[Any], batch: int = 4) -> Found:
        """Measure on rows, so many at a time: what the loss is, and what it reports."""
        sums: dict[str, float] = {"loss": 0.0}
        places = 0
        with self.measuring(rows, batch) as batches:
            for inputs in batches:
                loss, numbers = self(**{n: x.to(self.target.device) for n, x in inputs.items()})
                count = self.places(inputs)
                for name, value in {"loss": float(loss), **numbers}.items():
                    sums[name] = sums.get(name, 0.0) + count * value
                places += count
        loss, *others = (value / max(places, 1) for value in sums.values())
        return Means(loss, places, dict(zip(list(sums)[1:], others, strict=True)))

    def quick(self) -> tuple[list[nn.Parameter], float]:
        """Return weights with a rate of their own, and how many times the others' it is."""
        return [], 1.0

    @contextmanager
    def measuring(self, rows: Dataset[Any], batch: int) -> Iterator[Iterator[Batch]]:
        """Give batches of rows without a trace: in evaluation mode, and drawing no numbers."""
        # Loaded by index: a sampler would draw from the random numbers that training goes on with.
        loader: Any = DataLoader(rows, batch, collate_fn=self.collate, generator=torch.Generator())
        training = self.training
        self.eval()
        try:
            with torch.no_grad(), self.rounding(), gathered(self):
                yield iter(loader)
        finally:
            self.train(training)

    @contextmanager
    def rounding(self) -> Iterator[None]:
        """Compute in `dtype`, if it is a 16 bit one."""
        # Without the cache: a weight rounded once without gradients would stay without them.
        with torch.autocast(
            self.target.output_device.type,
            self.dtype,
            enabled=self.dtype in (torch.bfloat16, torch.float16),
            cache_enabled=False,
        ):
            yield


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Have all weights of a module at hand, also those that FSDP spreads over processes."""
    spread = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in spread:
        part.unshard()
    try:
        yield
    finally:
        for part in spread:
            part.reshard()
