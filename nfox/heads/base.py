"""Heads: layers trained on a target's hidden states, and what they are trained and measured by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from nfox.decoding.target import Target

IGNORE = -100
"""The label of a token that is not learned."""


class HeadsConfig(BaseModel, extra="forbid"):
    """What every kind of heads is sized by; each kind adds its own.

    Args:
        hidden_size: of the base.
        vocab_size: of the base; 0 where no weight depends on it.
        num_heads: how many tokens ahead are drafted.
        num_layers: of a head's body.
    """

    hidden_size: int = Field(ge=1)
    vocab_size: int = Field(0, ge=0)
    num_heads: int = Field(4, ge=1)
    num_layers: int = Field(1, ge=1)


@dataclass(frozen=True)
class Text:
    """Texts the target has read, for training and for measuring.

    Args:
        ids: [B, T] tokens.
        hidden: [B, T, D] the target's last hidden states.
        labels: [B, T] what is to be foretold at each place: the tokens themselves or the target's
            own choices, IGNORE where nothing is learned.
        chosen: the labels are the target's own choices.
    """

    ids: Tensor
    hidden: Tensor
    labels: Tensor
    chosen: bool = False

    def ahead(self, count: int) -> Tensor:
        """Return [B, T] the labels `count` places further on, IGNORE beyond the end."""
        return torch.nn.functional.pad(self.labels, (0, count), value=IGNORE)[:, count:]

    def compared(self) -> dict[str, Text]:
        """Return what guesses are compared with while training, by what its numbers' names end in:
        the data's tokens, whatever is learned; and the target's own choices, where they are known.
        """
        said = torch.where(self.labels != IGNORE, self.ids, IGNORE)
        data = replace(self, labels=said, chosen=False)
        return {"": data, "_base": self} if self.chosen else {"": data}


class Heads(nn.Module, ABC):
    """Layers on top of a target's hidden states.

    Attributes:
        Config: the class of its config.
        config: what it is sized by.
        learns_choices: whether the paper's labels are the target's own choices, not the data.
    """

    Config: ClassVar[type[HeadsConfig]] = HeadsConfig
    learns_choices: ClassVar[bool] = False
    config: Any

    def __init__(self, config: HeadsConfig) -> None:
        super().__init__()
        self.config = config

    def start(self, target: Target) -> None:
        """Prepare for training on a target, from nothing."""

    @abstractmethod
    def loss(self, text: Text, target: Target) -> tuple[Tensor, dict[str, float]]:
        """Return the loss to train with, and numbers to log.

        Args:
            text: what the target has read; it may have no label at all, which gives 0.
            target: frozen.
        """

    @abstractmethod
    def guesses(self, text: Text, target: Target, width: int) -> Tensor:
        """Return [B, T, depth, width] tokens: those proposed, were the token after each place the
        root, the likeliest first.

        Those at [:, t, d] should be `text.ahead(d + 2)[:, t]`.
        """


def state_scale(target: Target) -> Tensor:
    """Return [D] how large the target's last hidden states are, from a few of its tokens."""
    cache, count = target.new_cache(), min(64, target.max_context)
    cache.reuse([0], (0,) if target.is_encoder_decoder else None)
    target.read([i * target.vocabulary_size // count for i in range(count)], cache)
    return cache.hidden.float().square().mean(0).sqrt()


def labelled(learned: Tensor, most: int = 0) -> tuple[Tensor, Tensor]:
    """Gather the places of a batch that are learned from, so that no others are computed.

    Args:
        learned: [B, T] bool.
        most: draw so many of them at random if there are more; 0 for all.

    Returns:
        [B, P] places, in order, and [B, P] bool which of them are learned; the others fill up rows.
    """
    if 0 < most < int(learned.sum()):
        chance = torch.rand(learned.shape, device=learned.device).masked_fill(~learned, 2.0)
        learned = chance <= chance.flatten().kthvalue(most).values
    longest = int(learned.sum(1).max())
    places = learned.int().argsort(stable=True, dim=1, descending=True)[:, :longest]
    return places, learned.gather(1, places)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of [n, V] logits over labels [n]; 0 if all are IGNORE."""
    total = nn.functional.cross_entropy(
        logits.float(), labels, ignore_index=IGNORE, reduction="sum"
    )
    return total / (labels != IGNORE).sum().clamp_min(1)


@torch.no_grad()
def accuracies(logits: Tensor, wanted: Mapping[str, Tensor]) -> dict[str, float]:
    """Return how often one of the first 1, 2, ... 5 of [n, V] logits is the label.

    Args:
        logits: of one head.
        wanted: labels [n], by the name that their numbers begin with.
    """
    top = logits.topk(min(5, logits.shape[-1])).indices
    numbers: dict[str, float] = {}
    for name, labels in wanted.items():
        count = (labels != IGNORE).sum().clamp_min(1)
        rates = (top == labels[:, None]).sum(0).cumsum(0) / count  # IGNORE is no token
        numbers |= {f"{name}_top{k}": rate for k, rate in enumerate(rates.tolist(), 1)}
    return numbers


@torch.no_grad()
def measure_accuracy(
    heads: Heads, target: Target, texts: Iterable[Text], width: int = 10
) -> list[list[float]]:
    """Return [depth][rank]: how often each guess is the label, over all texts."""
    hits = torch.zeros(heads.config.num_heads, width)
    count = torch.zeros(heads.config.num_heads)
    for text in texts:
        guesses = heads.guesses(text, target, width)
        for depth in range(guesses.shape[2]):
            wanted = text.ahead(depth + 2)
            learned = wanted != IGNORE
            right = guesses[:, :, depth][learned] == wanted[learned][:, None]
            hits[depth] += right.float().sum(0).cpu()
            count[depth] += int(learned.sum())
    return [[round(float(x), 4) for x in row] for row in hits / count.clamp_min(1)[:, None]]
