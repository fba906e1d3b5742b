"""Heads: layers trained on a target's hidden states, and what they are trained and measured by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from nfox.decoding.target import Target, Vocabulary

IGNORE = -100
"""The label of a token that is not learned."""


Size = Annotated[int, Field(le=1 << 20)]
"""A size of a layer. The file of weights decides how large it may really be; this only keeps the
bytes of a weight countable."""


class HeadsConfig(BaseModel, extra="forbid"):
    """The sizes that every kind of heads has; each kind adds its own.

    Args:
        hidden_size: D, the width of the base's hidden states.
        vocab_size: V, of the base; 0 where no weight depends on it.
        num_heads: how many tokens after the root are drafted.
        num_layers: the layers of a head's body, or of the draft module.
    """

    hidden_size: Size = Field(ge=1)
    vocab_size: int = Field(0, ge=0)
    num_heads: Size = Field(4, ge=1)
    num_layers: Size = Field(1, ge=1)

    @property
    def layer_count(self) -> int:
        """How many layers are made of these sizes, each with weights of its own."""
        return self.num_heads * self.num_layers


@dataclass(frozen=True)
class TextBatch:
    """A batch of texts that the target has read, to train or to measure heads on.

    Args:
        ids: [B, T] token ids.
        hidden: [B, T, D] the target's last hidden states after each token.
        labels: [B, T] the token to be foretold at each position, IGNORE where none is: the tokens
            themselves, or the target's own.
        has_target_labels: whether the labels are the target's own tokens.
    """

    ids: Tensor
    hidden: Tensor
    labels: Tensor
    has_target_labels: bool = False

    def labels_ahead(self, count: int) -> Tensor:
        """Return [B, T] the labels `count` positions further on, IGNORE beyond the end."""
        return torch.nn.functional.pad(self.labels, (0, count), value=IGNORE)[:, count:]

    def references(self) -> dict[str, TextBatch]:
        """Return the labels that guesses are compared with while training, each by the ending of
        the names of its figures: "" for the data's tokens, whatever is learned, and "_base" for the
        target's own tokens, where they are known.
        """
        tokens = torch.where(self.labels != IGNORE, self.ids, IGNORE)
        data = replace(self, labels=tokens, has_target_labels=False)
        return {"": data, "_base": self} if self.has_target_labels else {"": data}


class Heads(nn.Module, ABC):
    """Layers on top of a target's hidden states, which guess the tokens after the root.

    Attributes:
        Config: the class of its config.
        config: the sizes of its layers, of that class.
        learns_target_labels: whether, as published, it learns the target's own tokens rather than
            those of the data.
    """

    Config: ClassVar[type[HeadsConfig]] = HeadsConfig
    learns_target_labels: ClassVar[bool] = False
    config: Any

    def __init__(self, config: HeadsConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def has_own_vocabulary(self) -> bool:
        """Whether it ends in vocabulary matrices of its own, else in the base's LM head."""
        return bool(getattr(self.config, "own_vocabulary", False))

    def prepare_training(self, target: Target) -> None:
        """Set the weights that training starts from, where these depend on the target."""

    @abstractmethod
    def loss(self, text: TextBatch, target: Vocabulary) -> tuple[Tensor, dict[str, float]]:
        """Return the loss to train with, and figures to log by their names.

        Args:
            text: what the target has read; it may have no label at all, which gives 0.
            target: frozen.
        """

    @abstractmethod
    def top_tokens(self, text: TextBatch, target: Target, width: int) -> Tensor:
        """Return the likeliest tokens at every position of a batch, as a drafter would guess them.

        Args:
            text: what the target has read; its labels do not matter.
            target: frozen.
            width: how many tokens for each depth.

        Returns:
            [B, T, depth, width] tokens, the likeliest first. Those at [:, t, d] are guesses for
            `text.labels_ahead(d + 2)[:, t]`: the token at t + 1 is the root.
        """


def lm_head_matrix(target: Target) -> Tensor:
    """Return [V, D] the matrix of the target's LM head, however it is stored there."""
    identity = torch.eye(target.hidden_size, dtype=target.dtype)
    return target.unembed(identity.to(target.output_device)).T


def hidden_state_scale(target: Target) -> Tensor:
    """Return [D] the root mean square of the target's last hidden states after a few tokens."""
    cache, count = target.new_cache(), min(64, target.max_context)
    cache.reuse([0], (0,) if target.is_encoder_decoder else None)
    target.read([i * target.vocabulary_size // count for i in range(count)], cache)
    return cache.hidden.float().square().mean(0).sqrt()


def select_positions(learned: Tensor, max_count: int = 0) -> tuple[Tensor, Tensor]:
    """Gather the positions of a batch that are learned from, so that no others are computed.

    Args:
        learned: [B, T] bool, whether anything is learned at a position.
        max_count: draw so many of them at random if there are more; 0 takes all.

    Returns:
        [B, P] positions, in order, and [B, P] bool, which of them are learned from; the others fill
        up rows.
    """
    if 0 < max_count < int(learned.sum()):
        numbers = torch.rand(learned.shape, device=learned.device).masked_fill(~learned, 2.0)
        learned = numbers <= numbers.flatten().kthvalue(max_count).values
    longest = int(learned.sum(1).max())
    positions = learned.int().argsort(stable=True, dim=1, descending=True)[:, :longest]
    return positions, learned.gather(1, positions)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of [n, V] logits over labels [n]; 0 if all are IGNORE."""
    total = nn.functional.cross_entropy(
        logits.float(), labels, ignore_index=IGNORE, reduction="sum"
    )
    return total / (labels != IGNORE).sum().clamp_min(1)


@torch.no_grad()
def top_k_accuracies(logits: Tensor, labels_by_name: Mapping[str, Tensor]) -> dict[str, float]:
    """Return how often the label is among the k likeliest tokens, for k from 1 to 5.

    Args:
        logits: [n, V] of one head.
        labels_by_name: labels [n], each by the beginning of the names of its figures.

    Returns:
        By name, which is the beginning and "_top1" to "_top5".
    """
    top = logits.topk(min(5, logits.shape[-1])).indices
    figures: dict[str, float] = {}
    for name, labels in labels_by_name.items():
        count = (labels != IGNORE).sum().clamp_min(1)
        rates = (top == labels[:, None]).sum(0).cumsum(0) / count  # IGNORE is no token
        figures |= {f"{name}_top{k}": rate for k, rate in enumerate(rates.tolist(), 1)}
    return figures


@torch.no_grad()
def measure_accuracy(
    heads: Heads, target: Target, texts: Iterable[TextBatch], width: int = 10
) -> list[list[float]]:
    """Return [depth][rank]: how often the guess of this rank for this depth is the label.

    Args:
        heads: the heads to measure.
        target: the target that they guess for.
        texts: batches with the labels to compare with.
        width: the number of ranks.
    """
    hits = torch.zeros(heads.config.num_heads, width)
    label_counts = torch.zeros(heads.config.num_heads)
    for text in texts:
        guesses = heads.top_tokens(text, target, width)
        for depth in range(guesses.shape[2]):
            labels = text.labels_ahead(depth + 2)
            learned = labels != IGNORE
            is_right = guesses[:, :, depth][learned] == labels[learned][:, None]
            hits[depth] += is_right.float().sum(0).cpu()
            label_counts[depth] += int(learned.sum())
    rates = hits / label_counts.clamp_min(1)[:, None]
    return [[round(float(rate), 4) for rate in ranks] for ranks in rates]
