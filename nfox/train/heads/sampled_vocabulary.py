"""A part of the vocabulary, in which the losses of heads are computed.

Heads end in the base's LM head, so most of what they take to train is logits of tokens that are not
even near. Jean et al. 2015 (arXiv 1412.2007): a softmax over the tokens of the batch and some
others that are drawn, each standing for as many as were not, is about the whole one.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from typing_extensions import override

from nfox.decoding.target import Vocabulary
from nfox.heads.base import IGNORE, TextBatch
from nfox.models.transformers_target import TransformersTarget


class SampledVocabulary(Vocabulary):
    """All tokens of a batch, and others that are drawn at random. They have numbers of their own.

    Args:
        target: the model that they are of.
        text: the batch.
        count: the number of other tokens to draw; all of them, if there are no more.

    Attributes:
        tokens: [n] the token ids by their numbers here.
    """

    def __init__(self, target: TransformersTarget, text: TextBatch, count: int) -> None:
        self.target = target
        is_present = torch.zeros(target.vocabulary_size, dtype=torch.bool, device=text.ids.device)
        is_present[text.ids.flatten()] = True
        is_present[text.labels[text.labels != IGNORE]] = True
        kept, others = is_present.nonzero()[:, 0], (~is_present).nonzero()[:, 0]
        drawn = others[torch.randperm(len(others), device=others.device)[:count]]
        self.tokens = torch.cat([kept, drawn])
        self._numbers = torch.zeros_like(is_present, dtype=torch.long)
        self._numbers[self.tokens] = torch.arange(len(self.tokens), device=others.device)
        stands_for = math.log(len(others) / len(drawn)) if len(drawn) else 0.0
        self._correction = torch.zeros(len(self.tokens), device=others.device)
        self._correction[len(kept) :] = stands_for

    def renumbered(self, text: TextBatch) -> TextBatch:
        """Return the batch with the numbers that its tokens have here."""
        labels = torch.where(text.labels == IGNORE, IGNORE, self._numbers[text.labels.clamp_min(0)])
        return replace(text, ids=self._numbers[text.ids], labels=labels)

    @property
    @override
    def device(self) -> torch.device:
        return self.target.device

    @override
    def embed(self, ids: Tensor) -> Tensor:
        return self.target.embed(self.tokens.to(ids.device)[ids])

    @override
    def unembed(self, hidden: Tensor) -> Tensor:
        """Return the logits [..., n] of these tokens; those of drawn ones are raised by the
        logarithm of how many each stands for.
        """
        logits = self.target.head.some_logits(hidden, self.tokens)
        return logits + self._correction.to(logits.dtype)
